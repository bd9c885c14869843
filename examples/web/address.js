/* address.js: what a visitor typed as the address of a model, or why no page can load it. */

/** The last part of an address, for people. */
export function nameOf(url) {
  const { pathname, host } = new URL(url);
  const last = pathname.split("/").filter(Boolean).pop() ?? host;
  try {
    return decodeURIComponent(last);
  } catch {
    return last; // a % that is not a code
  }
}

const isLoopback = (host) => host === "localhost" || host.endsWith(".localhost") || host === "[::1]" || /^127(\.\d+){3}$/.test(host);

/** { url, name } of a text. Throws an error with a sentence for the visitor. */
export function readAddress(text, page = location) {
  let url;
  try {
    url = new URL(text, page.href);
  } catch {
    throw new Error(`"${text}" is not an address; it should look like https://example.com/model.bin`);
  }
  if (url.protocol === "file:" || /^[a-z]:$/.test(url.protocol))
    throw new Error("A page cannot open a file by its path; pick the file with the button above, or drop it here");
  if (!["http:", "https:"].includes(url.protocol))
    throw new Error(`A model cannot be loaded from a ${url.protocol} address; use one that begins with https:// or http://`);
  if (page.protocol === "https:" && url.protocol === "http:" && !isLoopback(url.hostname))
    throw new Error(
      `The browser does not load ${url.href}: this page came over https, and from such a page http is blocked; ` +
        "use an https:// address, or download the file and pick it here",
    );
  return { url: url.href, name: nameOf(url) };
}
