// The dashboard as a page: asks the server over HTTP for what a widget hears from its kernel.

import dashboard from "./dashboard.js";

// A request that hangs must not keep the next from being sent, in milliseconds.
const PATIENCE = 10_000;

class Model {
  #values = { picture: null, every: 1 };
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
    return action.do === "look" ? this.#look() : this.#steer(action);
  }

  async #look() {
    if (this.#looking) return;
    this.#looking = true;
    try {
      await this.#ask("live");
    } finally {
      this.#looking = false;
    }
  }

  async #steer(action) {
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify(action);
    if (await this.#ask("control", { method: "POST", headers, body })) {
      this.#fire("msg:custom", { done: true });
    }
  }

  // Whether a picture came. Addresses are relative: the page may stand behind a proxy's prefix.
  async #ask(address, options = {}) {
    try {
      const response = await fetch(address, { ...options, signal: AbortSignal.timeout(PATIENCE) });
      const said = await response.json();
      if (!response.ok) throw new Error(said.error);
      this.#values.picture = said;
    } catch (error) {
      // That a look finds nobody is told by the dashboard itself, which hears no news.
      const unreached = error instanceof TypeError || error instanceof DOMException;
      if (address === "live" && unreached) return false;
      const message = unreached ? "the server cannot be reached" : error.message;
      this.#fire("msg:custom", { error: message });
      return false;
    }
    this.#fire("change:picture");
    return true;
  }

  #fire(event, content) {
    for (const listener of this.#listeners[event] ?? []) listener(content);
  }
}

dashboard.render({ model: new Model(), el: document.querySelector("main") });
