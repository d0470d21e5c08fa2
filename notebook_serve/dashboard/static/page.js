// The dashboard as a page: asks the server over HTTP for what a widget hears from its kernel.

import dashboard from "./dashboard.js";
import { tryIt } from "./tryit.js";

// A request that hangs must not keep the next from being sent, in milliseconds.
const PATIENCE = 10_000;

// Which of several models is shown stands in the page's own address.
const query = () => {
  const name = new URLSearchParams(location.search).get("model");
  return name === null ? "" : `?model=${encodeURIComponent(name)}`;
};

// The picture that the server answers with, or the sentence with which it refuses. Addresses are
// relative: the page may stand behind a proxy's prefix.
async function ask(address, options = {}) {
  try {
    const response = await fetch(address, { ...options, signal: AbortSignal.timeout(PATIENCE) });
    const said = await response.json();
    return response.ok ? { picture: said } : { refusal: said.error };
  } catch {
    return {}; // out of reach, or another server answers in its place
  }
}

// What anywidget gives the dashboard in a notebook.
class Model {
  #values = { picture: null, every: 1, direct: true };
  #listeners = {};
  #looking = false;

  get(name) {
    return this.#values[name];
  }

  on(event, listener) {
    (this.#listeners[event] ??= new Set()).add(listener);
  }

  off(event, listener) {
    this.#listeners[event]?.delete(listener);
  }

  send(action) {
    if (action.do === "look") return this.#look();
    if (action.do === "show") return location.assign(`?model=${encodeURIComponent(action.model)}`);
    return this.#steer(action);
  }

  async #look() {
    if (this.#looking) return;
    this.#looking = true;
    const { picture, refusal } = await ask(`live${query()}`);
    this.#looking = false;
    if (picture) this.#show(picture);
    // Without an answer the dashboard says so itself: it hears no news.
    else if (refusal) this.#fire("msg:custom", { error: refusal });
  }

  async #steer(action) {
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify(action);
    const { picture, refusal } = await ask(`control${query()}`, { method: "POST", headers, body });
    if (picture) this.#fire("msg:custom", { done: true });
    else this.#fire("msg:custom", { error: refusal ?? "the server cannot be reached" });
    if (picture) this.#show(picture);
  }

  #show(picture) {
    this.#values.picture = picture;
    this.#fire("change:picture");
  }

  #fire(event, content) {
    for (const listener of this.#listeners[event] ?? []) listener(content);
  }
}

const model = new Model();
const form = tryIt(document.querySelector(".ns-try"));
model.on("change:picture", () => form.show(model.get("picture").question));
dashboard.render({ model, el: document.querySelector("main") });
