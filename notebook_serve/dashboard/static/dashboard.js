// Draws the snapshots of a server: snapshot.py defines their fields. The widget and the page both
// run this code. Data of the server is inserted as text, never as markup. assets.py puts charts.js
// before this file into the same module.

const STATES = {
  ...{ ready: "green", loading: "orange", paused: "orange", stopping: "orange" },
  ...{ failing: "lost", failed: "lost", dead: "lost" },
};
const NO_REQUESTS =
  "No requests yet. Send one over HTTP or with server.predict(...): " +
  "it appears here within a second.";

const stateColour = (state) => `var(--ns-${STATES[state] ?? "waits"})`;
const hasRequests = ({ outcomes, timeline }) =>
  timeline.length > 0 || sum(Object.values(outcomes)) > 0;

// Give a node one child per item and fill each. Existing children, and so the focus, are kept.
function fillChildren(node, items, makeChild, fill) {
  while (node.children.length > items.length) node.lastChild.remove();
  while (node.children.length < items.length) node.append(makeChild());
  items.forEach((item, n) => fill(node.children[n], item));
}

// Send a message. If the kernel was restarted, the line about missing data appears soon.
function trySend(model, message) {
  try {
    model.send(message);
  } catch {
    // No channel to the kernel.
  }
}

// -- models -----------------------------------------------------------------------------------

// A button for each model of a server with several: it selects the model, and shows its state.
function makeModelButtons(model) {
  const node = make("nav", "ns-models");
  node.setAttribute("aria-label", "models");
  const show = (snapshot) => {
    const all = snapshot.models ?? [];
    node.hidden = all.length < 2;
    fillChildren(node, all, () => makeModelButton(model), (button, { name, state, waiting }) => {
      const [square, text] = button.children;
      button.dataset.model = name;
      square.style.color = stateColour(state);
      write(text, `${name} · ${state} · ${waiting} waiting`);
      if (name === snapshot.name) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
  };
  return { node, show };
}

function makeModelButton(model) {
  const square = make("span", "ns-square", "■");
  square.setAttribute("aria-hidden", "true");
  const button = make("button", "", square, make("span"));
  button.type = "button";
  button.addEventListener("click", () => {
    trySend(model, { do: "show", model: button.dataset.model });
  });
  return button;
}

// -- head and tiles ---------------------------------------------------------------------------

function makeHeader() {
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
  const show = (snapshot) => {
    square.style.color = stateColour(snapshot.state);
    write(name, snapshot.name);
    write(state, snapshot.state);
    write(model, snapshot.model);
    write(policy, snapshot.policy.repr);
    write(error, snapshot.error);
    error.hidden = !snapshot.error;
  };
  const title = make("p", "ns-head", square, name, state, ...facts);
  return { node: make("header", "", title, error), show };
}

function makeTiles() {
  const node = make("div", "ns-tiles"); // no <dl>: JupyterLab styles these
  const makeTile = () =>
    make("div", "ns-tile", make("div", "", make("span"), make("small")), make("div"));
  const fill = ({ children: [term, figure] }, [name, value, scope = ""]) => {
    write(term.children[0], name);
    write(term.children[1], scope);
    write(figure, value);
  };
  return { node, show: (snapshot) => fillChildren(node, snapshot.tiles, makeTile, fill) };
}

// -- errors and warnings ----------------------------------------------------------------------

const formatTimes = (times) => (times > 1 ? `${times} times` : "once");

// The error of a failing model. A screen reader reads only the first line: the second has a clock.
function makeFailureBanner() {
  const [what, when] = [make("p"), make("p")];
  const node = make("section", "ns-failing", what, when);
  what.setAttribute("role", "alert");
  const show = ({ failing }) => {
    node.hidden = !failing;
    if (!failing) return;
    const { type, message, ago, times, next } = failing;
    write(what, `Requests fail: ${type}: ${message}`);
    write(when, `${formatTimes(times)}, last ${formatAge(ago)}. ${next}`);
  };
  return { node, show };
}

function makeWarnings() {
  const node = make("ul", "ns-warnings");
  node.setAttribute("aria-label", "warnings");
  const show = ({ warnings = [] }) => {
    node.hidden = !warnings.length;
    fillChildren(node, warnings, () => make("li"), write);
  };
  return { node, show };
}

function makeErrors() {
  const [summary, list] = [make("summary"), make("ol")];
  const node = make("details", "ns-errors", summary, list);
  const makeItem = () => make("li", "", make("span"), make("small"));
  const fill = ({ children: [what, when] }, { type, message, ago, times, request }) => {
    write(what, `${type}: ${message}`);
    const id = request ? ` · request ${request}` : "";
    write(when, `${formatTimes(times)}, ${formatAge(ago)}${id}`);
  };
  const show = ({ errors = [] }) => {
    node.hidden = !errors.length;
    write(summary, `newest errors (${errors.length})`);
    fillChildren(list, errors, makeItem, fill);
  };
  return { node, show };
}

// -- controls ---------------------------------------------------------------------------------

// A field for each option of a policy. Existing fields are kept, and with them the cursor.
function makeOptionFields() {
  const node = make("span", "ns-fields");
  const inputs = () => [...node.querySelectorAll("input")];
  const fill = (options) => {
    if (Object.keys(options).join() !== inputs().map((input) => input.name).join()) {
      node.replaceChildren(...Object.keys(options).map(makeOptionField));
    }
    for (const input of inputs()) {
      if (input.value !== options[input.name]) input.value = options[input.name];
      input.size = Math.min(Math.max(input.value.length, 5), 60);
    }
  };
  const read = () => inputs().map((input) => `${input.name}=${input.value}`).join(", ");
  return { node, fill, read };
}

function makeOptionField(name) {
  const input = make("input");
  Object.assign(input, { name, type: "text", autocomplete: "off", spellcheck: false });
  return make("label", "", name, input);
}

// States in which no policy can be set.
const ENDED = ["stopping", "stopped", "failed", "dead"];

function makePolicyForm(send) {
  const choice = make("select");
  const fields = makeOptionFields();
  const [apply, undo] = [make("button", "", "Apply"), make("button", "", "Undo")];
  const label = make("label", "", "policy", choice);
  const node = make("form", "ns-form", label, fields.node, apply, undo);
  undo.type = "reset";
  let snapshot = null;
  let disconnected = false;
  let edits = 0; // after an edit, snapshots do not change the form

  const update = () => {
    const { policies, state } = snapshot;
    apply.disabled = disconnected || ENDED.includes(state) || !(choice.value in policies);
    undo.hidden = !edits;
  };
  const refill = () => {
    const { policy, policies } = snapshot;
    fields.fill(choice.value === policy.name ? policy.options : (policies[choice.value] ?? {}));
  };
  const showCurrent = () => {
    const names = Object.keys(snapshot.policies);
    // A user's own policy is listed while it is in effect.
    if (!names.includes(snapshot.policy.name)) names.unshift(snapshot.policy.name);
    if (names.join() !== [...choice.options].map((option) => option.value).join()) {
      choice.replaceChildren(...names.map((name) => new Option(name)));
    }
    if (choice.value !== snapshot.policy.name) choice.value = snapshot.policy.name;
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
    showCurrent();
    update();
  });
  node.addEventListener("submit", (event) => {
    event.preventDefault();
    const policy = `${choice.value}(${fields.read()})`;
    const sent = edits;
    // Keep edits made since the command was sent.
    const done = () => (edits = edits === sent ? 0 : edits);
    send({ do: "policy", policy }, `Applied: the next batch uses ${policy}.`, done);
  });
  const show = (next, isDisconnected) => {
    if (snapshot && snapshot.name !== next.name) edits = 0; // edits for another model
    [snapshot, disconnected] = [next, isDisconnected];
    if (!edits) showCurrent();
    update();
  };
  return { node, show };
}

function makePauseButton(send) {
  const node = make("button", "ns-pause");
  node.type = "button";
  let paused = false;
  node.addEventListener("click", () => {
    if (paused) send({ do: "resume" }, "Resumed: the queued requests run.");
    else send({ do: "pause" }, "Paused: requests wait in the queue until you press Resume.");
  });
  const show = ({ state }, disconnected) => {
    paused = state === "paused";
    write(node, paused ? "Resume" : "Pause");
    node.disabled = disconnected || !["ready", "paused", "failing"].includes(state);
  };
  return { node, show };
}

// A kernel handles a widget's messages between cells; the page sends commands to the server itself.
const describeDelivery = (model) =>
  model.get("direct")
    ? "Sent."
    : "Sent. The kernel applies it after all queued cells. " +
      "Controls on the server's page take effect at once.";

// All controls, and a line with the result of the last command. Without data they are disabled.
function makeControls(model) {
  const pending = []; // answers arrive in the order of the commands
  const outcome = make("p", "ns-outcome");
  outcome.setAttribute("role", "status");
  const send = (command, success, done = () => {}) => {
    pending.push({ success, done });
    write(outcome, describeDelivery(model));
    try {
      model.send(command);
    } catch {
      receive({ error: "The kernel was restarted: run the cell again." });
    }
  };
  const receive = ({ done, error }) => {
    if (!done && !error) return;
    const command = pending.shift();
    if (done) command?.done();
    outcome.classList.toggle("ns-rejected", Boolean(error));
    write(outcome, error ?? command?.success ?? "");
  };
  const parts = [makePauseButton(send), makePolicyForm(send)];
  const node = make("div", "ns-controls", ...parts.map((part) => part.node), outcome);
  let [snapshot, disconnected] = [null, false];
  const show = (next) => {
    snapshot = next;
    node.hidden = !snapshot.steers;
    parts.forEach((part) => part.show(snapshot, disconnected));
  };
  const setDisconnected = (now) => {
    if (now === disconnected) return;
    disconnected = now;
    if (snapshot) show(snapshot);
  };
  return { node, show, receive, setDisconnected };
}

// -- charts -----------------------------------------------------------------------------------

function makeCharts() {
  const empty = make("p", "ns-empty", NO_REQUESTS);
  const parts = makeChartCards();
  const grid = make("div", "ns-grid", ...parts.map((part) => part.node));
  const show = (snapshot, colours) => {
    const begun = hasRequests(snapshot);
    empty.hidden = begun;
    grid.hidden = !begun;
    if (begun) parts.forEach((part) => part.show(snapshot, colours));
  };
  const remove = () => parts.forEach((part) => part.remove());
  return { node: make("div", "", empty, grid), show, remove };
}

// -- visibility, theme and connection -----------------------------------------------------------

function watchVisibility(node, changed) {
  let inView = false;
  const report = () => changed(inView && document.visibilityState === "visible");
  const observer = new IntersectionObserver((entries) => {
    inView = entries.at(-1).isIntersecting;
    report();
  });
  observer.observe(node);
  document.addEventListener("visibilitychange", report);
  return () => {
    observer.disconnect();
    document.removeEventListener("visibilitychange", report);
  };
}

// A canvas ignores CSS, so it is redrawn when the theme of the system or of JupyterLab changes.
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

// A line that appears if no data arrived for `patience` seconds.
function makeConnectionLine(root, patience, setDisconnected) {
  const node = make("p", "ns-connection");
  let last = performance.now();
  const check = () => {
    const silent = Math.floor((performance.now() - last) / 1000);
    const stale = silent >= patience;
    root.classList.toggle("ns-stale", stale);
    setDisconnected(stale);
    const cause = "the server or its kernel has ended or cannot be reached.";
    write(node, stale ? `No data for ${silent} s: ${cause}` : "");
  };
  const reset = () => {
    last = performance.now();
    check();
  };
  return { node, reset, check };
}

// Hide the offline copy (static_dashboard.py) while this one works, drawn before it or after.
function hideStatic(id) {
  if (!id) return () => {};
  const style = make("style");
  const at = `[data-notebook-serve="${CSS.escape(id)}"]`;
  style.textContent = `.jp-OutputArea-child:has(${at}), ${at} { display: none !important; }`;
  document.head.append(style);
  return () => style.remove();
}

// -- the widget -------------------------------------------------------------------------------

function render({ model, el }) {
  const root = make("section", "notebook-serve-live");
  const every = model.get("every");
  const controls = makeControls(model);
  const connection = makeConnectionLine(root, 3 + 2 * every, controls.setDisconnected);
  const probe = make("i");
  const parts = [
    ...[makeModelButtons(model), makeHeader(), makeFailureBanner(), makeWarnings(), makeTiles()],
    ...[controls, makeErrors(), makeCharts()],
  ];
  probe.hidden = true;
  root.append(probe, connection.node, ...parts.map((part) => part.node));
  el.append(root);

  const draw = () => {
    const snapshot = model.get("snapshot");
    if (!snapshot?.state) return; // before the first one
    const colours = readColours(probe);
    parts.forEach((part) => part.show(snapshot, colours));
  };
  const update = () => {
    connection.reset();
    draw();
  };
  let timers = [];
  const look = () => trySend(model, { do: "look" });
  const setVisible = (visible) => {
    timers.forEach(clearInterval);
    timers = visible ? [setInterval(look, 1000 * every), setInterval(connection.check, 1000)] : [];
    if (!visible) return;
    connection.reset(); // no data was requested while it was hidden
    look();
  };

  model.on("change:snapshot", update);
  model.on("msg:custom", controls.receive);
  draw();
  const showStatic = hideStatic(model.get("shown"));
  const stops = [showStatic, watchVisibility(root, setVisible), watchTheme(draw)];
  return () => {
    stops.forEach((stop) => stop());
    timers.forEach(clearInterval);
    model.off("change:snapshot", update);
    model.off("msg:custom", controls.receive);
    parts.forEach((part) => part.remove?.());
    root.remove();
  };
}

// Also used by tryit.js.
export { formatDuration, make };
export default { render };
