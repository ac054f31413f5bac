/** The page around the screens: navigation, notices, what is the matter with the service. */
import { useEffect, useRef } from "preact/hooks";
import { signal } from "@preact/signals";
import { isTest, key, keyAsked } from "../api/http";
import { Icon, imagesIn } from "../parts/basics";
import { isOffline, live, notices } from "../state/store";
import { go, link, route } from "../state/route";
import { texts } from "../texts";
import { Activity } from "./activity";
import { addPhotos } from "../state/photos";
import { KeyDialog } from "./key";
import { New } from "./new";
import { People } from "./people";
import { PersonScreen } from "./person";
import { Pictures } from "./pictures";
import { Viewer } from "./viewer";

const theme = signal(localStorage.getItem("hdb-theme") ?? "system");

function applyTheme() {
  if (theme.value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
}
applyTheme();

function turnTheme() {
  const order = ["system", "light", "dark"];
  theme.value = order[(order.indexOf(theme.value) + 1) % order.length] ?? "system";
  localStorage.setItem("hdb-theme", theme.value);
  applyTheme();
}

function Screen() {
  const { screen, id } = route.value;
  switch (screen) {
    case "new":
      return <New key={id} addTo={id} />;
    case "person":
      return <PersonScreen key={id} id={id} />;
    case "people":
      return <People />;
    case "pictures":
      return <Pictures />;
    case "activity":
      return <Activity />;
    default:
      return (
        <section class="page narrow">
          <h1>{texts.states.notFound}</h1>
          <a href={link("new")}>{texts.states.home}</a>
        </section>
      );
  }
}

export function App() {
  const main = useRef<HTMLElement>(null);
  const { screen, id, params } = route.value;
  const isFirst = useRef(true);
  useEffect(() => {
    const names: Record<string, string> = { new: texts.start.title, people: texts.people.title, pictures: texts.gallery.title, activity: texts.activity.title };
    document.title = texts.title(names[screen] ?? texts.nav.people);
    if (!isFirst.current) {
      scrollTo(0, 0);
      main.current?.focus({ preventScroll: true });
    }
    isFirst.current = false;
  }, [screen, id]);
  useEffect(() => {
    const paste = (event: ClipboardEvent) => {
      const files = imagesIn(event.clipboardData?.files);
      if (!files.length) return;
      event.preventDefault();
      if (route.value.screen !== "new") go(link("new"));
      addPhotos(files);
    };
    addEventListener("paste", paste);
    return () => removeEventListener("paste", paste);
  }, []);
  const picture = params.get("picture");
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current?.focus())}>
        {texts.skip}
      </a>
      <Header />
      {isOffline.value && (
        <p class="banner" role="alert">
          {texts.states.gone}
        </p>
      )}
      <main id="main" ref={main} tabIndex={-1}>
        <Screen />
      </main>
      {picture && <Viewer id={picture} />}
      {keyAsked.value && <KeyDialog />}
      <div class="notices" role="status" aria-live="polite">
        {notices.value.map((notice) => (
          <p key={notice.id} class={notice.isBad ? "is-bad" : ""}>
            {notice.text}
          </p>
        ))}
      </div>
    </>
  );
}

function Header() {
  const { screen } = route.value;
  const busy = Object.values(live.value).filter((each) => each.job.status === "running" || each.job.status === "queued").length;
  const items = [
    ["new", texts.nav.create],
    ["people", texts.nav.people],
    ["pictures", texts.nav.pictures],
    ["activity", texts.nav.activity],
  ] as const;
  const current = screen === "person" ? "people" : screen;
  return (
    <header class="top">
      <a class="mark" href={link("new")} aria-label={texts.name}>
        <svg viewBox="0 0 20 20" aria-hidden="true">
          <path d="M2 6V2h4M14 2h4v4M18 14v4h-4M6 18H2v-4" />
          <circle cx="10" cy="10" r="3" />
        </svg>
        <span>{texts.name}</span>
      </a>
      <nav aria-label={texts.nav.label}>
        {items.map(([name, text]) => (
          <a key={name} href={link(name)} aria-current={current === name ? "page" : undefined}>
            {text}
            {name === "activity" && busy > 0 && <span class="count">{busy}</span>}
          </a>
        ))}
      </nav>
      <div class="tools">
        {isTest.value && (
          <span class="mode" title={texts.key.testHint}>
            {texts.key.test}
          </span>
        )}
        {(key.value || keyAsked.value) && (
          <button type="button" class="ghost square" aria-label={texts.key.title} onClick={() => (keyAsked.value = "asked")}>
            <Icon name="key" />
          </button>
        )}
        <button type="button" class="ghost square" aria-label={`${texts.theme.label}: ${texts.theme[theme.value as "system" | "light" | "dark"]}`} onClick={turnTheme}>
          <Icon name="sun" />
        </button>
      </div>
    </header>
  );
}
