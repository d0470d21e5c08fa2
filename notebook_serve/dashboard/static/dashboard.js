// Draws a picture of a server. See live.py for what a picture holds, and dashboard.py for the two
// hosts. Whatever comes from the server is put in as text, never as markup. The charts are in
// charts.js, which comes before this in the same module.

const STATES = {
  ...{ ready: "green", loading: "orange", paused: "orange", stopping: "orange" },
  ...{ failing: "lost", failed: "lost", dead: "lost" },
};
const WHY_NONE =
  "Nothing has been asked yet: send a request, over HTTP or with server.predict(...), and it " +
  "shows here within a second.";

const colourOf = (state) => `var(--ns-${STATES[state] ?? "waits"})`;
const hasBegun = ({ outcomes, timeline }) =>
  timeline.length > 0 || total(Object.values(outcomes)) > 0;

// As many children as there are items, each filled; those that are there are kept.
function fillChildren(node, items, child, put) {
  while (node.children.length > items.length) node.lastChild.remove();
  while (node.children.length < items.length) node.append(child());
  items.forEach((item, n) => put(node.children[n], item));
}

// -- models -----------------------------------------------------------------------------------

// Which model is shown, where a server has several, and what each of them does.
function models(model) {
  const node = make("nav", "ns-models");
  node.setAttribute("aria-label", "models");
  const show = (picture) => {
    const all = picture.models ?? [];
    node.hidden = all.length < 2;
    // Buttons that are there are kept, and with them which one has the focus.
    while (node.children.length > all.length) node.lastChild.remove();
    while (node.children.length < all.length) node.append(modelButton(model));
    all.forEach(({ name, state, waiting }, n) => {
      const button = node.children[n];
      const [square, text] = button.children;
      button.dataset.model = name;
      square.style.color = colourOf(state);
      write(text, `${name} · ${state} · ${waiting} waiting`);
      if (name === picture.name) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
  };
  return { node, show };
}

function modelButton(model) {
  const square = make("span", "ns-square", "■");
  square.setAttribute("aria-hidden", "true");
  const button = make("button", "", square, make("span"));
  button.type = "button";
  button.addEventListener("click", () => {
    try {
      model.send({ do: "show", model: button.dataset.model });
    } catch {
      // The kernel was restarted; that no news comes is said soon.
    }
  });
  return button;
}

// -- head and tiles ---------------------------------------------------------------------------

function head() {
  const square = make("span", "ns-square", "■");
  const [name, state] = [make("b", "ns-name"), make("span", "ns-state")];
  const [model, policy] = [make("code"), make("code")];
  const error = make("p", "ns-error");
  square.setAttribute("aria-hidden", "true");
  error.setAttribute("role", "alert");
  const facts = [
    make("span", "ns-fact", "model ", model),
    make("span", "ns-fact", "policy ", policy),
  ];
  const show = (picture) => {
    square.style.color = colourOf(picture.state);
    write(name, picture.name);
    write(state, picture.state);
    write(model, picture.model);
    write(policy, picture.policy.repr);
    write(error, picture.error);
    error.hidden = !picture.error;
  };
  const title = make("p", "ns-head", square, name, state, ...facts);
  return { node: make("header", "", title, error), show };
}

function tiles() {
  const node = make("div", "ns-tiles"); // no <dl>: JupyterLab has its own idea of one
  const child = () =>
    make("div", "ns-tile", make("div", "", make("span"), make("small")), make("div"));
  const put = ({ children: [term, figure] }, [name, value, scope = ""]) => {
    write(term.children[0], name);
    write(term.children[1], scope);
    write(figure, value);
  };
  return { node, show: (picture) => fillChildren(node, picture.tiles, child, put) };
}

// -- what is wrong ----------------------------------------------------------------------------

const often = (times) => (times > 1 ? `${times} times` : "once");

// Why every request fails. Only what does not change by itself is read out.
function failingBanner() {
  const [what, when] = [make("p"), make("p")];
  const node = make("section", "ns-failing", what, when);
  what.setAttribute("role", "alert");
  const show = ({ failing }) => {
    node.hidden = !failing;
    if (!failing) return;
    const { type, message, ago, times, next } = failing;
    write(what, `Requests fail: ${type}: ${message}`);
    write(when, `${often(times)}, the last one ${since(ago)}. ${next}`);
  };
  return { node, show };
}

function warningList() {
  const node = make("ul", "ns-warnings");
  node.setAttribute("aria-label", "warnings");
  const show = ({ warnings = [] }) => {
    node.hidden = !warnings.length;
    fillChildren(node, warnings, () => make("li"), write);
  };
  return { node, show };
}

function newestErrors() {
  const [summary, list] = [make("summary"), make("ol")];
  const node = make("details", "ns-errors", summary, list);
  const child = () => make("li", "", make("span"), make("small"));
  const put = ({ children: [what, when] }, { type, message, ago, times, request }) => {
    write(what, `${type}: ${message}`);
    write(when, `${often(times)}, ${since(ago)}${request ? ` · request ${request}` : ""}`);
  };
  const show = ({ errors = [] }) => {
    node.hidden = !errors.length;
    write(summary, `newest errors (${errors.length})`);
    fillChildren(list, errors, child, put);
  };
  return { node, show };
}

// -- controls ---------------------------------------------------------------------------------

// The options of one policy, each with a field. Fields that are there are kept, and with them
// where the cursor is.
function optionFields() {
  const node = make("span", "ns-fields");
  const inputs = () => [...node.querySelectorAll("input")];
  const fill = (options) => {
    if (Object.keys(options).join() !== inputs().map((input) => input.name).join()) {
      node.replaceChildren(...Object.keys(options).map(optionField));
    }
    for (const input of inputs()) {
      if (input.value !== options[input.name]) input.value = options[input.name];
      input.size = Math.min(Math.max(input.value.length, 5), 60);
    }
  };
  const text = () => inputs().map((input) => `${input.name}=${input.value}`).join(", ");
  return { node, fill, text };
}

function optionField(name) {
  const input = make("input");
  Object.assign(input, { name, type: "text", autocomplete: "off", spellcheck: false });
  return make("label", "", name, input);
}

// Where nothing can be steered any more.
const OVER = ["stopping", "stopped", "failed", "dead"];

function policyForm(ask) {
  const choice = make("select");
  const fields = optionFields();
  const [apply, undo] = [make("button", "", "Apply"), make("button", "", "Undo")];
  const label = make("label", "", "policy", choice);
  const node = make("form", "ns-form", label, fields.node, apply, undo);
  undo.type = "reset";
  let picture = null;
  let lost = false;
  let edits = 0; // while there are any, pictures leave the form alone

  const update = () => {
    const { policies, state } = picture;
    apply.disabled = lost || OVER.includes(state) || !(choice.value in policies);
    undo.hidden = !edits;
  };
  const refill = () => {
    const { policy, policies } = picture;
    fields.fill(choice.value === policy.name ? policy.options : (policies[choice.value] ?? {}));
  };
  const follow = () => {
    const names = Object.keys(picture.policies);
    // One that is not built in can be seen, and left.
    if (!names.includes(picture.policy.name)) names.unshift(picture.policy.name);
    if (names.join() !== [...choice.options].map((option) => option.value).join()) {
      choice.replaceChildren(...names.map((name) => new Option(name)));
    }
    if (choice.value !== picture.policy.name) choice.value = picture.policy.name;
    refill();
  };
  choice.addEventListener("change", refill);
  node.addEventListener("input", () => {
    edits += 1;
    update();
  });
  node.addEventListener("reset", (event) => {
    event.preventDefault();
    edits = 0;
    follow();
    update();
  });
  node.addEventListener("submit", (event) => {
    event.preventDefault();
    const policy = `${choice.value}(${fields.text()})`;
    const sent = edits;
    // What was typed since is not what was applied.
    const done = () => (edits = edits === sent ? 0 : edits);
    ask({ do: "policy", policy }, `The next batch is chosen by ${policy}.`, done);
  });
  const show = (next, isLost) => {
    if (picture && picture.name !== next.name) edits = 0; // those were of another model
    [picture, lost] = [next, isLost];
    if (!edits) follow();
    update();
  };
  return { node, show };
}

function pauseButton(ask) {
  const node = make("button", "ns-pause");
  node.type = "button";
  let paused = false;
  node.addEventListener("click", () => {
    if (paused) ask({ do: "resume" }, "Resumed: the queue is being run.");
    else ask({ do: "pause" }, "Paused: requests wait until it is resumed.");
  });
  const show = ({ state }, lost) => {
    paused = state === "paused";
    write(node, paused ? "Resume" : "Pause");
    node.disabled = lost || !["ready", "paused", "failing"].includes(state);
  };
  return { node, show };
}

// A kernel hears a widget between cells; the page asks the server itself.
const sentBy = (model) =>
  model.get("direct")
    ? "Sent."
    : "Sent. It takes effect when all queued cells have run. " +
      "On the server's page, controls take effect at once.";

// All that can be asked for, and a line that says what came of it. Where no news come, nothing
// can be asked for.
function controls(model) {
  const asked = []; // answers come in the order of the questions
  const outcome = make("p", "ns-outcome");
  outcome.setAttribute("role", "status");
  const ask = (action, said, done = () => {}) => {
    asked.push({ said, done });
    write(outcome, sentBy(model));
    try {
      model.send(action);
    } catch {
      heard({ error: "the kernel was restarted: run the cell again" });
    }
  };
  const heard = ({ done, error }) => {
    if (!done && !error) return;
    const question = asked.shift();
    if (done) question?.done();
    outcome.classList.toggle("ns-refused", Boolean(error));
    write(outcome, error ?? question?.said ?? "");
  };
  const parts = [pauseButton(ask), policyForm(ask)];
  const node = make("div", "ns-controls", ...parts.map((part) => part.node), outcome);
  let [picture, lost] = [null, false];
  const show = (next) => {
    picture = next;
    node.hidden = !picture.steers;
    parts.forEach((part) => part.show(picture, lost));
  };
  const lose = (now) => {
    if (now === lost) return;
    lost = now;
    if (picture) show(picture);
  };
  return { node, show, heard, lose };
}

// -- charts -----------------------------------------------------------------------------------

function cards() {
  const nothing = make("p", "ns-empty", WHY_NONE);
  const parts = chartCards();
  const grid = make("div", "ns-grid", ...parts.map((part) => part.node));
  const show = (picture, colours) => {
    const begun = hasBegun(picture);
    nothing.hidden = begun;
    grid.hidden = !begun;
    if (begun) parts.forEach((part) => part.show(picture, colours));
  };
  const remove = () => parts.forEach((part) => part.remove());
  return { node: make("div", "", nothing, grid), show, remove };
}

// -- whether it is seen, and what it says when nothing comes ------------------------------------

function watchSight(node, changed) {
  let near = false;
  const tell = () => changed(near && document.visibilityState === "visible");
  const observer = new IntersectionObserver((entries) => {
    near = entries.at(-1).isIntersecting;
    tell();
  });
  observer.observe(node);
  document.addEventListener("visibilitychange", tell);
  return () => {
    observer.disconnect();
    document.removeEventListener("visibilitychange", tell);
  };
}

// A canvas knows no CSS: it is drawn anew when a theme changes, the system's or JupyterLab's.
function watchTheme(changed) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const observer = new MutationObserver(changed);
  dark.addEventListener("change", changed);
  observer.observe(document.body, { attributes: true });
  return () => {
    dark.removeEventListener("change", changed);
    observer.disconnect();
  };
}

// Says so once no picture has come for longer than `patience` seconds.
function news(root, patience, lose) {
  const node = make("p", "ns-news");
  let last = performance.now();
  const tick = () => {
    const silent = Math.floor((performance.now() - last) / 1000);
    const stale = silent >= patience;
    root.classList.toggle("ns-stale", stale);
    lose(stale);
    const said = `no news for ${silent} s: the server or its kernel is gone, or out of reach`;
    write(node, stale ? said : "");
  };
  const came = () => {
    last = performance.now();
    tick();
  };
  return { node, came, tick };
}

// The static picture of dashboard_picture.py is for readers without a kernel: while this lives it
// is out of sight, in whichever order the two are drawn.
function hideStatic(id) {
  if (!id) return () => {};
  const style = make("style");
  const at = `[data-notebook-serve="${CSS.escape(id)}"]`;
  style.textContent = `.jp-OutputArea-child:has(${at}), ${at} { display: none !important; }`;
  document.head.append(style);
  return () => style.remove();
}

// -- the whole --------------------------------------------------------------------------------

function render({ model, el }) {
  const root = make("section", "notebook-serve-live");
  const every = model.get("every");
  const steering = controls(model);
  const fresh = news(root, 3 + 2 * every, steering.lose);
  const probe = make("i");
  const parts = [
    ...[models(model), head(), failingBanner(), warningList(), tiles(), steering],
    ...[newestErrors(), cards()],
  ];
  probe.hidden = true;
  root.append(probe, fresh.node, ...parts.map((part) => part.node));
  el.append(root);

  const draw = () => {
    const picture = model.get("picture");
    if (!picture?.state) return; // none has come yet
    const colours = readColours(probe);
    parts.forEach((part) => part.show(picture, colours));
  };
  const came = () => {
    fresh.came();
    draw();
  };
  let timers = [];
  const look = () => {
    try {
      model.send({ do: "look" });
    } catch {
      // The kernel was restarted; that no news comes is said soon.
    }
  };
  const sight = (seen) => {
    timers.forEach(clearInterval);
    timers = seen ? [setInterval(look, 1000 * every), setInterval(fresh.tick, 1000)] : [];
    if (!seen) return;
    fresh.came(); // nobody asked while it was out of sight
    look();
  };

  model.on("change:picture", came);
  model.on("msg:custom", steering.heard);
  draw();
  const stops = [hideStatic(model.get("shown")), watchSight(root, sight), watchTheme(draw)];
  return () => {
    stops.forEach((stop) => stop());
    timers.forEach(clearInterval);
    model.off("change:picture", came);
    model.off("msg:custom", steering.heard);
    parts.forEach((part) => part.remove?.());
    root.remove();
  };
}

// The page's form uses these too.
export { duration, make };
export default { render };
