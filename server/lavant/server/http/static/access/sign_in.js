// The form that asks for an API key, when the server wants one.

import { h, replace } from "../shared/elements.js";

export function signInPage(main, message, onKey) {
  const key = h("input", {
    type: "password",
    name: "key",
    "aria-label": "API key",
    placeholder: "lvk_…",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
  });
  function submit(event) {
    event.preventDefault();
    const given = key.value;
    key.value = "";
    onKey(given);
  }
  document.title = "Sign in · lavant";
  replace(
    main,
    h(
      "form",
      { class: "sign-in", "aria-label": "Sign in", onsubmit: submit },
      h("h1", {}, "Sign in"),
      h("p", {}, "This server wants an API key, an access token or a JWT. It stays in the memory of this page only."),
      key,
      h("button", { type: "submit" }, "Sign in"),
      message ? h("p", { class: "fault", role: "alert" }, message) : null,
    ),
  );
  key.focus();
}
