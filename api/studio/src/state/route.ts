/** Where one is on the page: `#/people`, `#/person/sub_…`; a picture in the large view is `?picture=img_…`. */
import { computed, signal } from "@preact/signals";

const hash = signal(location.hash);
addEventListener("hashchange", () => {
  hash.value = location.hash;
});

export const route = computed(() => {
  const [path = "", query = ""] = hash.value.replace(/^#\/?/, "").split("?");
  const [screen = "", id = ""] = path.split("/");
  return { screen: screen || "new", id, params: new URLSearchParams(query) };
});

export const link = (screen: string, id = "") => `#/${screen}${id ? `/${id}` : ""}`;

export function go(target: string) {
  location.hash = target;
}

/** Open a picture over the screen that is there, or close it. */
export function openPicture(id: string | null, replace = false) {
  const { screen, id: subject } = route.value;
  const target = link(screen, subject) + (id ? `?picture=${id}` : "");
  if (replace || !id) history.replaceState(null, "", target);
  else history.pushState(null, "", target);
  hash.value = location.hash;
}
