// Page of the dashboard: gets over HTTP the data that a widget gets from its kernel.

import dashboard from "./dashboard.js";
import { makeTryIt } from "./tryit.js";

// Time limit of a request in milliseconds: a request that hangs blocks the next one.
const TIMEOUT = 10_000;

// The page's own address selects one of several models.
const getQuery = () => {
  const name = new URLSearchParams(location.search).get("model");
  return name === null ? "" : `?model=${encodeURIComponent(name)}`;
};

// Return the server's snapshot or its error message. Addresses are relative, because a proxy may
// serve the page below a prefix.
async function request(address, options = {}) {
  try {
    const response = await fetch(address, { ...options, signal: AbortSignal.timeout(TIMEOUT) });
    const body = await response.json();
    return response.ok ? { snapshot: body } : { error: body.error };
  } catch {
    return {}; // no answer, or that of another server
  }
}

// The interface of anywidget that dashboard.js uses.
class Model {
  #values = { snapshot: null, every: 1, direct: true };
  #listeners = {};
  #isLooking = false;

  get(name) {
    return this.#values[name];
  }

  on(event, listener) {
    (this.#listeners[event] ??= new Set()).add(listener);
  }

  off(event, listener) {
    this.#listeners[event]?.delete(listener);
  }

  send(message) {
    if (message.do === "look") return this.#look();
    if (message.do === "show") return this.#open(message.model);
    return this.#sendCommand(message);
  }

  #open(name) {
    location.assign(`?model=${encodeURIComponent(name)}`);
  }

  async #look() {
    if (this.#isLooking) return;
    this.#isLooking = true;
    const { snapshot, error } = await request(`live${getQuery()}`);
    this.#isLooking = false;
    if (snapshot) this.#show(snapshot);
    // Without an answer, the dashboard shows that no data arrives.
    else if (error) this.#fire("msg:custom", { error });
  }

  async #sendCommand(command) {
    const headers = { "Content-Type": "application/json" };
    const options = { method: "POST", headers, body: JSON.stringify(command) };
    const { snapshot, error } = await request(`control${getQuery()}`, options);
    if (snapshot) this.#fire("msg:custom", { done: true });
    else this.#fire("msg:custom", { error: error ?? "The server cannot be reached." });
    if (snapshot) this.#show(snapshot);
  }

  #show(snapshot) {
    this.#values.snapshot = snapshot;
    this.#fire("change:snapshot");
  }

  #fire(event, content) {
    for (const listener of this.#listeners[event] ?? []) listener(content);
  }
}

const model = new Model();
const form = makeTryIt(document.querySelector(".ns-try"));
model.on("change:snapshot", () => form.show(model.get("snapshot").question));
dashboard.render({ model, el: document.querySelector("main") });
