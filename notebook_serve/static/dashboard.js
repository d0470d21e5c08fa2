// Draws a picture of a server. See live.py for what a picture holds, and dashboard.py for the two
// hosts. Whatever comes from the server is put in as text, never as markup.

const Chart = globalThis.Chart;
Object.assign(Chart.defaults, { animation: false, maintainAspectRatio: false });
Object.assign(Chart.defaults.font, { family: "system-ui, sans-serif", size: 11 });

// Colours that can be told apart with any kind of sight (Okabe and Ito), as in figures.py.
const PALETTE = ["#0072B2", "#E69F00", "#009E73", "#56B4E9", "#CC79A7"];
const [BLUE, ORANGE, GREEN, SKY] = PALETTE;
const PALE = `${ORANGE}55`;
const LOST = "#D55E00";
const STATES = { ready: GREEN, loading: ORANGE, paused: ORANGE, failed: LOST, dead: LOST };
const WHY_NONE =
  "Nothing has been asked yet: send a request, over HTTP or with server.predict(...), and it " +
  "shows here within a second.";

// -- small things -----------------------------------------------------------------------------

function make(tag, name = "", ...children) {
  const node = document.createElement(tag);
  node.className = name;
  node.append(...children);
  return node;
}

// A node that says what it said is left alone: a screen reader would read it out again.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function duration(seconds) {
  if (seconds < 1e-3) return `${(seconds * 1e6).toFixed(0)} µs`;
  return seconds < 1 ? `${(seconds * 1e3).toFixed(1)} ms` : `${seconds.toFixed(2)} s`;
}

const total = (values) => values.reduce((sum, value) => sum + value, 0);
const pairs = (counts) => Object.entries(counts).map(([name, n]) => `${name}: ${n}`).join(", ");
const hasBegun = ({ outcomes, timeline }) =>
  timeline.length > 0 || total(Object.values(outcomes)) > 0;

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
      square.style.color = STATES[state] ?? "#80868B";
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
    square.style.color = STATES[picture.state] ?? "#80868B";
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
  const show = (picture) => {
    while (node.children.length < picture.tiles.length) {
      node.append(make("div", "ns-tile", make("div"), make("div")));
    }
    picture.tiles.forEach(([name, value], n) => {
      const [term, figure] = node.children[n].children;
      write(term, name);
      write(figure, value);
    });
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

function policyForm(ask) {
  const choice = make("select");
  const fields = optionFields();
  const [apply, undo] = [make("button", "", "Apply"), make("button", "", "Undo")];
  const label = make("label", "", "policy", choice);
  const node = make("form", "ns-form", label, fields.node, apply, undo);
  undo.type = "reset";
  let picture = null;
  let edits = 0; // while there are any, pictures leave the form alone

  const update = () => {
    apply.disabled = !(choice.value in picture.policies);
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
  const show = (next) => {
    if (picture && picture.name !== next.name) edits = 0; // those were of another model
    picture = next;
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
    if (paused) ask({ do: "resume" }, "Resumed: what waits is run.");
    else ask({ do: "pause" }, "Paused: requests wait until it is resumed.");
  });
  const show = (picture) => {
    paused = picture.state === "paused";
    write(node, paused ? "Resume" : "Pause");
    node.disabled = !["ready", "paused"].includes(picture.state);
  };
  return { node, show };
}

// All that can be asked for, and a line that says what came of it.
function controls(model) {
  const asked = []; // answers come in the order of the questions
  const outcome = make("p", "ns-outcome");
  outcome.setAttribute("role", "status");
  const ask = (action, said, done = () => {}) => {
    asked.push({ said, done });
    write(outcome, "Asked; in a notebook it is heard once the running cell is through.");
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
  const show = (picture) => {
    node.hidden = !picture.steers;
    parts.forEach((part) => part.show(picture));
  };
  return { node, show, heard };
}

// -- charts -----------------------------------------------------------------------------------

const whole = { beginAtZero: true, suggestedMax: 1, ticks: { precision: 0 } };
const bare = { grid: { display: false } };
const seconds = { ...bare, ticks: { autoSkip: false, maxRotation: 0, callback: everyQuarter } };
const key = { display: true, align: "end", labels: { boxWidth: 10, boxHeight: 2, padding: 8 } };
const noKey = { display: false };
const lineOf = (label, data, colour, more = {}) => ({
  label,
  data,
  borderColor: colour,
  backgroundColor: colour,
  borderWidth: 2,
  pointRadius: 0,
  ...more,
});
const bar = { maxBarThickness: 34, borderRadius: 2 };

function everyQuarter(n) {
  return n % 15 ? null : this.getLabelForValue(n);
}

const ago = ({ arrived }) => arrived.map((_, n) => `−${arrived.length - n} s`);

const rates = {
  name: "rates",
  type: "line",
  title: "Requests per second",
  options: { scales: { x: seconds, y: whole }, plugins: { legend: { ...key, reverse: true } } },
  draw: ({ history }) => ({
    says: `${history.arrived.at(-1)} arrived, ${history.answered.at(-1)} answered`,
    labels: ago(history),
    datasets: [ // the first is drawn on top
      lineOf("lost", history.lost, LOST),
      lineOf("answers", history.answered, GREEN),
      lineOf("arrivals", history.arrived, BLUE),
    ],
  }),
};

const waiting = {
  name: "waiting",
  type: "line",
  title: "Requests waiting",
  options: { scales: { x: seconds, y: whole }, plugins: { legend: noKey } },
  draw: ({ history }) => ({
    says: `${history.waiting.at(-1)} wait`,
    labels: ago(history),
    datasets: [lineOf("waiting", history.waiting, ORANGE, { fill: true, backgroundColor: PALE })],
  }),
};

const times = {
  name: "times",
  type: "bar",
  title: ({ times: { latency } }) => `Time to answer (${latency.p99 >= 1 ? "s" : "ms"})`,
  none: "no answer in the last minute",
  options: { scales: { x: bare, y: { beginAtZero: true } }, plugins: { legend: key } },
  draw: ({ times: all }) => {
    const names = all.latency.p50 === null ? [] : ["wait", "run", "latency"];
    const scale = all.latency.p99 >= 1 ? 1 : 1e3;
    const of = (level) => names.map((name) => all[name][level] * scale);
    const column = (label, colour) => ({ ...bar, label, data: of(label), backgroundColor: colour });
    return {
      says: names.map((name) => `${name} ${duration(all[name].p50)} at p50`).join(", "),
      labels: names,
      datasets: [column("p50", "#9CCBEA"), column("p90", "#3E97D1"), column("p99", BLUE)],
    };
  },
};

const counted = (field, label, backgroundColor) => (picture) => ({
  says: pairs(picture[field]),
  labels: Object.keys(picture[field]),
  datasets: [{ ...bar, label, backgroundColor, data: Object.values(picture[field]) }],
});

const sizes = {
  name: "sizes",
  type: "bar",
  title: "Batches by size",
  none: "no batch in the last minute",
  options: { scales: { x: bare, y: whole }, plugins: { legend: noKey } },
  draw: counted("batch_sizes", "batches", GREEN),
};

const reasons = {
  name: "reasons",
  type: "bar",
  title: "Batches by reason",
  none: "no batch in the last minute",
  options: { indexAxis: "y", scales: { x: whole, y: bare }, plugins: { legend: noKey } },
  draw: counted("reasons", "batches", SKY),
};

// -- time line --------------------------------------------------------------------------------

const FEW = 24;
const requestOf = (item) => item.dataset.requests[item.dataIndex];
const fromNow = (at) => (at ? `${at < 0 ? "−" : "+"}${Math.abs(+at.toPrecision(6))} s` : "now");
const isLost = ({ outcome }) => outcome !== "ok" && outcome !== "unfinished";
const bars = { grouped: false, barPercentage: 1, categoryPercentage: 0.84, maxBarThickness: 14 };

function explain(item) {
  const { arrived, started, finished, batch, size, reason, outcome } = requestOf(item);
  const lines = [outcome, `waited ${duration((started ?? finished ?? 0) - arrived)}`];
  if (started === null) return lines;
  const why = reason ? `, released: ${reason}` : "";
  const ran = `ran ${duration((finished ?? 0) - started)}`;
  return [...lines, ran, `batch ${batch}, of ${size}${why}`];
}

// A few stand at the top, rather than far apart.
function rowsOf(requests) {
  const ids = requests.map(({ id }) => String(id));
  return [...ids, ...Array(Math.max(0, FEW - ids.length)).fill("")];
}

// Up to now while somebody waits; where it is quiet, up to the last answer.
function spanOf(requests) {
  const first = Math.min(...requests.map(({ arrived }) => arrived));
  const last = Math.max(...requests.map(({ finished }) => finished ?? 0));
  const margin = Math.max(0.005 * (last - first), 0.0005);
  return [first - margin, last + margin];
}

function requestBars(requests, colours) {
  const lost = requests.filter(isLost);
  const run = ({ started, finished }) => (started === null ? null : [started, finished ?? 0]);
  return [
    {
      ...bars,
      requests,
      data: requests.map(({ arrived, started, finished }) => [arrived, started ?? finished ?? 0]),
      backgroundColor: colours.waits,
    },
    {
      ...bars,
      requests,
      data: requests.map(run),
      backgroundColor: requests.map(({ batch }) => PALETTE[(batch ?? 0) % PALETTE.length]),
      minBarLength: 2,
    },
    {
      type: "scatter",
      requests: lost,
      data: lost.map(({ id, finished }) => ({ x: finished, y: String(id) })),
      pointStyle: "crossRot",
      pointRadius: 4,
      borderWidth: 2,
      borderColor: LOST,
    },
  ];
}

const timeline = {
  name: "timeline",
  type: "bar",
  title: "The newest requests",
  note: "grey: waits · coloured by batch: runs · ×: lost",
  options: {
    indexAxis: "y",
    interaction: { mode: "nearest", axis: "y", intersect: false },
    scales: {
      x: { type: "linear", ticks: { includeBounds: false, callback: fromNow } },
      y: { type: "category", ...bare, title: { display: true, text: "request" } },
    },
    plugins: {
      legend: noKey,
      tooltip: {
        displayColors: false,
        filter: (item, n) => n === 0, // its wait and its run are one request
        callbacks: { title: ([item]) => `request ${requestOf(item).id}`, label: explain },
      },
    },
  },
  draw: ({ timeline: requests }, colours) => ({
    says: `${requests.length} requests, ${requests.filter(isLost).length} of them lost`,
    labels: rowsOf(requests),
    datasets: requestBars(requests, colours),
    span: spanOf(requests),
  }),
};

// -- cards ------------------------------------------------------------------------------------

const muted = () => Chart.defaults.color;
const faint = () => Chart.defaults.borderColor;

// Functions, so that the colours are asked for again with each picture.
const inColour = ({ ticks, grid, title, ...rest }) => ({
  ...rest,
  ticks: { ...ticks, color: muted },
  grid: { ...grid, color: faint },
  border: { color: faint },
  title: { ...title, color: muted },
});

function card(title, note, ...children) {
  const caption = make("figcaption", "", make("span", "", title), " ", make("small", "", note));
  return make("figure", "ns-card", caption, ...children);
}

function chartCard({ name, type, title, note = "last minute", none = "", options, draw }) {
  const canvas = make("canvas");
  const nothing = make("p", "ns-nothing", none);
  const frame = make("div", "ns-frame", canvas, nothing);
  const node = card("", note, frame);
  node.classList.add(`ns-${name}`);
  canvas.dataset.chart = name;
  canvas.setAttribute("role", "img");
  const scales = { x: inColour(options.scales.x), y: inColour(options.scales.y) };
  const data = { labels: [], datasets: [] };
  const chart = new Chart(canvas, { type, data, options: { ...options, scales } });
  const show = (picture, colours) => {
    const { says, labels, datasets, span } = draw(picture, colours);
    const heading = typeof title === "function" ? title(picture) : title;
    write(node.querySelector("span"), heading);
    canvas.setAttribute("aria-label", `${heading}: ${says || none}`);
    nothing.hidden = labels.length > 0;
    chart.data.labels = labels;
    // The same objects, or what a person has hidden by the legend would come back.
    const shown = chart.data.datasets;
    datasets.forEach((set, n) => (shown[n] = Object.assign(shown[n] ?? {}, set)));
    if (span) [chart.options.scales.x.min, chart.options.scales.x.max] = span;
    chart.update();
  };
  return { node, show, remove: () => chart.destroy() };
}

function outcomesCard() {
  const list = make("div", "ns-outcomes");
  const node = card("Requests by outcome", "since the start", list);
  const show = ({ outcomes }) => {
    const all = total(Object.values(outcomes));
    const seen = Object.entries(outcomes).filter(([, count]) => count).sort((a, b) => b[1] - a[1]);
    const rows = seen.map(([name, count]) => {
      const square = make("span", "ns-square", "■ ");
      square.style.color = name === "ok" ? GREEN : LOST;
      const share = `${((100 * count) / all).toFixed(1)}%`;
      const figures = [count.toLocaleString(), share].map((text) => make("span", "", text));
      return [make("span", "", square, name), ...figures];
    });
    list.replaceChildren(...rows.flat());
  };
  return { node, show };
}

function cards() {
  const nothing = make("p", "ns-empty", WHY_NONE);
  const small = [rates, waiting, times, sizes, reasons].map(chartCard);
  const parts = [...small, outcomesCard(), chartCard(timeline)];
  const grid = make("div", "ns-grid", ...parts.map((part) => part.node));
  const show = (picture, colours) => {
    const begun = hasBegun(picture);
    nothing.hidden = begun;
    grid.hidden = !begun;
    if (begun) parts.forEach((part) => part.show(picture, colours));
  };
  const remove = () => parts.forEach((part) => part.remove?.());
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

function readColours(node) {
  const style = getComputedStyle(node);
  Chart.defaults.color = style.getPropertyValue("--ns-muted");
  Chart.defaults.borderColor = style.getPropertyValue("--ns-line");
  return { waits: style.getPropertyValue("--ns-waits") };
}

// Says so once no picture has come for longer than `patience` seconds.
function news(root, patience) {
  const node = make("p", "ns-news");
  let last = performance.now();
  const tick = () => {
    const silent = Math.floor((performance.now() - last) / 1000);
    const stale = silent >= patience;
    root.classList.toggle("ns-stale", stale);
    const said = `no news for ${silent} s: the server or its kernel is gone, or out of reach`;
    write(node, stale ? said : "");
  };
  const came = () => {
    last = performance.now();
    tick();
  };
  return { node, came, tick };
}

// -- the whole --------------------------------------------------------------------------------

function render({ model, el }) {
  const root = make("section", "notebook-serve-live");
  const every = model.get("every");
  const fresh = news(root, 3 + 2 * every);
  const steering = controls(model);
  const parts = [models(model), head(), tiles(), steering, cards()];
  root.append(fresh.node, ...parts.map((part) => part.node));
  el.append(root);

  const draw = () => {
    const picture = model.get("picture");
    if (!picture?.state) return; // none has come yet
    const colours = readColours(root);
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
  const stops = [watchSight(root, sight), watchTheme(draw)];
  return () => {
    stops.forEach((stop) => stop());
    timers.forEach(clearInterval);
    model.off("change:picture", came);
    model.off("msg:custom", steering.heard);
    parts.forEach((part) => part.remove?.());
    root.remove();
  };
}

export default { render };
