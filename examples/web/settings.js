/* settings.js: a fieldset of settings for each conversation, as options of a session. */
const KEY = "quip-settings";
const NUMBERS = ["temperature", "topK", "topP", "seed", "nContext", "maxOutputTokens", "nThreads"];

const load = () => {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {}; // no storage, or another program's
  }
};

export class Settings {
  #fields;

  /** Add a fieldset to `parent`, filled with the last values or the defaults. */
  constructor(parent, name, defaults = {}) {
    this.name = name;
    const copy = document.getElementById("settings-template").content.cloneNode(true);
    this.element = copy.querySelector("fieldset");
    this.element.querySelector("legend").textContent = name;
    this.#fields = this.element.elements;
    for (const [key, value] of Object.entries({ ...defaults, ...load()[name] })) {
      const field = this.#fields.namedItem(key);
      if (field && field.type !== "file") field.value = value;
    }
    this.element.addEventListener("input", () => this.#changed());
    parent.append(this.element);
    this.#changed();
  }

  #changed() {
    this.element.querySelector("output").textContent = this.#fields.namedItem("temperature").value;
    const kept = {};
    for (const field of this.#fields) if (field.name && field.type !== "file") kept[field.name] = field.value;
    try {
      localStorage.setItem(KEY, JSON.stringify({ ...load(), [this.name]: kept }));
    } catch {} // no storage: the settings are lost with the page
  }

  /** Are all values valid? Shows the user those that are not. */
  isValid() {
    return [...this.#fields].every((field) => field.reportValidity());
  }

  get adapterFile() {
    return this.#fields.namedItem("adapter").files[0] ?? null;
  }

  /** Options for model.session(); an empty field is the default. */
  options() {
    const options = {};
    for (const name of NUMBERS) {
      const text = this.#fields.namedItem(name).value;
      if (text !== "") options[name] = Number(text);
    }
    const system = this.#fields.namedItem("system").value.trim();
    if (system) options.system = system;
    return options;
  }

  remove() {
    this.element.remove();
  }
}
