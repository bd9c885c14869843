/* progress.js: shows how far the loading of a model is. */
const $ = (id) => document.getElementById(id);

export const size = (n) =>
  n >= 1e9 ? `${(n / 1e9).toFixed(2)} GB` : n >= 1e6 ? `${(n / 1e6).toFixed(n < 1e7 ? 1 : 0)} MB` : `${(n / 1e3).toFixed(0)} KB`;

const PHASES = {
  waiting: "Another tab is downloading it",
  download: "Downloading",
  cache: "Reading from this browser's storage",
  open: "Opening",
  gpu: "Trying the GPU of this device with",
};
const SPEED_MS = 3000; // the speed is that of the last seconds

export class Progress {
  #started = performance.now();
  #name;
  #seen = []; // [time, bytes] of the last seconds

  constructor(name) {
    this.#name = name;
    this.show({ phase: "open", loaded: 0, total: 0 });
  }

  get seconds() {
    return (performance.now() - this.#started) / 1000;
  }

  show({ phase, loaded, total }) {
    const sentence = `${PHASES[phase] ?? phase}: ${this.#name}`;
    if ($("phase").textContent !== sentence) $("phase").textContent = sentence; // is read aloud
    const bar = $("progress");
    if (total && phase !== "gpu") {
      bar.max = total;
      bar.value = loaded;
    } else {
      bar.removeAttribute("value");
    }
    $("amount").textContent = loaded ? `${size(loaded)}${total ? ` of ${size(total)}` : ""}` : "";
    $("speed").textContent = phase === "download" ? this.#speed(loaded, total) : "";
  }

  /** "12 MB/s, 9 s left" */
  #speed(loaded, total) {
    const now = performance.now();
    this.#seen.push([now, loaded]);
    while (now - this.#seen[0][0] > SPEED_MS) this.#seen.shift();
    const [then, before] = this.#seen[0];
    const perSecond = ((loaded - before) / (now - then)) * 1000;
    if (now - then < 400 || !(perSecond > 0)) return "";
    const left = total ? Math.ceil((total - loaded) / perSecond) : 0;
    const time = left >= 90 ? `${Math.round(left / 60)} min left` : left ? `${left} s left` : "";
    return [`${size(perSecond)}/s`, time].filter(Boolean).join(", ");
  }
}
