/** The API key, where the service wants one. */
import { useState } from "preact/hooks";
import { key, keyAsked, setKey } from "../api/http";
import { Dialog } from "../parts/basics";
import { texts } from "../texts";

export function KeyDialog() {
  const [value, setValue] = useState("");
  const why = keyAsked.value;
  return (
    <Dialog title={texts.key.title} class="small" onClose={() => (keyAsked.value = null)}>
      {why !== "asked" && (
        <p class={why === "wrong" ? "refusal" : ""} role={why === "wrong" ? "alert" : undefined}>
          {why === "wrong" ? texts.key.wrong : texts.key.missing}
        </p>
      )}
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          if (value.trim()) setKey(value.trim());
        }}
      >
        <label class="field">
          <span>{texts.key.label}</span>
          <input
            type="password"
            autocomplete="off"
            spellcheck={false}
            placeholder={texts.key.placeholder}
            value={value}
            aria-describedby="key-lead"
            onInput={(event) => setValue(event.currentTarget.value)}
          />
        </label>
        <p id="key-lead" class="soft">
          {texts.key.lead}
        </p>
        <div class="row">
          <button type="submit" class="primary" disabled={!value.trim()}>
            {texts.key.use}
          </button>
          {key.value && (
            <button type="button" onClick={() => setKey("")}>
              {texts.key.forget}
            </button>
          )}
        </div>
      </form>
    </Dialog>
  );
}
