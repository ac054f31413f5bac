/** The same request for a shell, for Python and for the command line. */
import { at, key } from "../api/http";
import type { Generation } from "../api/types";

const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;
const given = (body: Generation) => Object.entries(body).filter(([, value]) => value !== null && value !== undefined && value !== "");

export function asCode(body: Generation): Record<"curl" | "python" | "hdb", string> {
  const origin = new URL(at(""), location.href).href.replace(/\/$/, "");
  const { prompt, subject_id, blend, ...rest } = body;
  const options = given(rest as Generation);
  const parts = blend?.map((part) => `${part.subject_id}=${part.weight}`).join(",");
  const auth = key.value ? ` \\\n  -H "Authorization: Bearer $HDB_API_KEY"` : "";
  const whom = blend ? `{${blend.map((part) => `"${part.subject_id}": ${part.weight}`).join(", ")}}` : `"${subject_id}"`;
  const apiKey = key.value ? ", api_key=os.environ[\"HDB_API_KEY\"]" : "";
  const flags = options.map(([name, value]) => ` ${name.length === 1 ? "-" : "--"}${name.replaceAll("_", "-")} ${typeof value === "string" ? quoted(value) : value}`);
  return {
    curl: `curl -sS ${origin}/v1/generations${auth} \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(JSON.stringify(Object.fromEntries(given(body))))}`,
    python: `${key.value ? "import os\n" : ""}from pathlib import Path\nfrom hyperdreambooth import Client\n\nwith Client("${origin}"${apiKey}) as client:\n    job = client.wait(client.generate(${whom}, ${JSON.stringify(prompt)}${options.map(([name, value]) => `, ${name}=${JSON.stringify(value)}`).join("")}))\n    for image in job.images:\n        Path(f"{image.id}.png").write_bytes(client.image(image))\n`,
    hdb: `export HDB_URL=${origin}\nhdb generate ${parts ?? subject_id} ${quoted(prompt)}${flags.join("")} -o out/`,
  };
}
