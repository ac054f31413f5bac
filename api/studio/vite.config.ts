import { defineConfig } from "vite";

const service = process.env.HDB_URL ?? "http://127.0.0.1:8000";

// Same names for the same content, and nothing inlined: the page's content security policy allows files only.
export default defineConfig({
  base: "./",
  publicDir: false,
  build: {
    outDir: process.env.STUDIO_OUT ?? "../server/pages/studio",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    reportCompressedSize: false,
  },
  server: { proxy: { "/v1": service, "/healthz": service, "/readyz": service } },
});
