/* settings.js: a fieldset of settings for each conversation, as options of a session. An empty field means
 * the model's own default. */
const KEY = "quip-settings-2";
const SAMPLING = ["temperature", "topK", "topP", "repeatPenalty"]; // the model file says their defaults
const NUMBERS = [...SAMPLING, "seed", "nContext", "maxOutputTokens", "nThreads"];

const load = () => {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {}; // no storage, or another program's
  }
};

export class Settings {
  #fields;

  /** Counts the changes, so that a conversation knows whether it has the current settings. */
  version = 0;

  /** Add a fieldset to `parent`, filled with the last values. */
  constructor(parent, name) {
    this.name = name;
    const copy = document.getElementById("settings-template").content.cloneNode(true);
    this.element = copy.querySelector("fieldset");
    this.element.querySelector("legend").textContent = name;
    this.#fields = [...this.element.elements].filter((field) => field.name);
    for (const [key, value] of Object.entries(load()[name] ?? {})) {
      const field = this.#field(key);
      if (field && field.type !== "file") field.value = value;
    }
    this.element.addEventListener("input", () => this.#changed());
    this.element.querySelector(".reset").addEventListener("click", () => this.#reset());
    parent.append(this.element);
  }

  #field(name) {
    return this.#fields.find((field) => field.name === name);
  }

  #changed() {
    this.version++;
    const kept = {};
    for (const field of this.#fields) if (field.type !== "file" && field.value) kept[field.name] = field.value;
    try {
      localStorage.setItem(KEY, JSON.stringify({ ...load(), [this.name]: kept }));
    } catch {} // no storage: the settings are lost with the page
  }

  #reset() {
    for (const field of this.#fields) field.value = "";
    this.#changed();
  }

  /** Show the defaults of a model in the fields that are empty. */
  showDefaults({ sampling }) {
    for (const name of SAMPLING) this.#field(name).placeholder = sampling?.[name] ?? "default";
  }

  isValid() {
    return this.#fields.every((field) => field.checkValidity());
  }

  /** Show the user the first value that is not valid. */
  report() {
    const field = this.#fields.find((field) => !field.checkValidity());
    field?.closest("details")?.setAttribute("open", "");
    field?.reportValidity();
  }

  get adapterFile() {
    return this.#field("adapter").files[0] ?? null;
  }

  /** Options for model.session(). */
  options() {
    const options = {};
    for (const name of NUMBERS) {
      const text = this.#field(name).value;
      if (text !== "") options[name] = Number(text);
    }
    const system = this.#field("system").value.trim();
    if (system) options.system = system;
    return options;
  }

  remove() {
    this.element.remove();
  }
}
