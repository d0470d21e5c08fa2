// The charts of a dashboard: what each draws of a picture (see live.py). It is one module with
// dashboard.js, which comes behind it: dashboard.py puts both together.

const Chart = globalThis.Chart;
Object.assign(Chart.defaults, { animation: false, maintainAspectRatio: false });
Object.assign(Chart.defaults.font, { family: "system-ui, sans-serif", size: 11 });

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

function since(seconds) {
  if (seconds < 1) return "just now";
  if (seconds < 100) return `${Math.round(seconds)} s ago`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} min ago` : `${Math.round(seconds / 3600)} h ago`;
}

const total = (values) => values.reduce((sum, value) => sum + value, 0);
const pairs = (counts) => Object.entries(counts).map(([name, n]) => `${name}: ${n}`).join(", ");

// -- colours ----------------------------------------------------------------------------------

const COLOURS = [
  ...["blue", "orange", "green", "sky", "purple", "lost", "waits", "p50", "p90", "p99"],
  ...["text", "muted", "line", "ground"],
];
const PALETTE = ["blue", "orange", "green", "sky", "purple"];

// A canvas knows no CSS: `probe` says what the variables of dashboard.css are just now.
function readColours(probe) {
  const read = (name) => {
    probe.style.color = `var(--ns-${name})`;
    return [name, getComputedStyle(probe).color];
  };
  const colours = Object.fromEntries(COLOURS.map(read));
  Chart.defaults.color = colours.muted;
  Chart.defaults.borderColor = colours.line;
  return colours;
}

const muted = () => Chart.defaults.color;
const faint = () => Chart.defaults.borderColor;
const pale = (rgb) => rgb.replace("rgb(", "rgba(").replace(")", ", 0.3)");

// Functions, so that the colours are asked for again with each picture.
const inColour = ({ ticks, grid, title, ...rest }) => ({
  ...rest,
  ticks: { ...ticks, color: muted },
  grid: { ...grid, color: faint },
  border: { color: faint },
  title: { ...title, color: muted },
});

// -- marks where the policy changed -----------------------------------------------------------

// Rows of labels, one below the other, and pixels of each.
const [ROWS, ROW] = [3, 13];

// Without the names of its options, and if it is long without their values.
function brief(policy) {
  const short = policy.replace(/\b\w+=/g, "");
  if (short.length <= 24) return short;
  const bracket = short.indexOf("(");
  return bracket > 0 && bracket < 24 ? `${short.slice(0, bracket)}(…)` : `${short.slice(0, 23)}…`;
}

const marksOf = ({ changes = [] }) =>
  changes.map(({ ago, policy, reason }) => ({
    x: -ago,
    fault: reason === "fault",
    label: `${reason === "fault" ? "fault → " : ""}${brief(policy)}`,
  }));

const saysChanges = ({ changes = [] }) =>
  changes.map(({ ago, policy }) => `; policy became ${brief(policy)} ${since(ago)}`).join("");

// Where each label stands: the newest first, in the first row that has room, or nowhere.
function placed(marks, { left, right }, widthOf) {
  const rows = Array.from({ length: ROWS }, () => []);
  return marks.toReversed().map((mark) => {
    const width = widthOf(mark.label) + 6;
    const x = mark.at + width > right ? Math.max(left, mark.at - width) : mark.at;
    const row = rows.findIndex((taken) => taken.every(([a, b]) => x > b || x + width < a));
    if (row >= 0) rows[row].push([x, x + width]);
    return { ...mark, x, width, row };
  });
}

function drawLine(ctx, { top, bottom }, { at, colour }) {
  ctx.strokeStyle = colour;
  ctx.beginPath();
  ctx.moveTo(at, top);
  ctx.lineTo(at, bottom);
  ctx.stroke();
}

function drawLabel(ctx, { top }, ground, { x, width, row, label, colour }) {
  ctx.fillStyle = ground;
  ctx.fillRect(x + 1, top + ROW * row, width - 2, ROW);
  ctx.fillStyle = colour;
  ctx.fillText(label, x + 3, top + ROW * row + 2);
}

Chart.register({
  id: "changes",
  afterDatasetsDraw({ ctx, chartArea, scales, marks = [], colours }) {
    const seen = marks.map((mark) => ({
      ...mark,
      at: scales.x.getPixelForValue(mark.x),
      colour: mark.fault ? colours.lost : colours.text,
    })).filter(({ at }) => at >= chartArea.left && at <= chartArea.right);
    ctx.save();
    Object.assign(ctx, { lineWidth: 1.5, textBaseline: "top", textAlign: "left" });
    ctx.font = `${Chart.defaults.font.size}px ${Chart.defaults.font.family}`;
    ctx.setLineDash([4, 3]);
    seen.forEach((mark) => drawLine(ctx, chartArea, mark));
    placed(seen, chartArea, (label) => ctx.measureText(label).width)
      .filter(({ row }) => row >= 0)
      .forEach((mark) => drawLabel(ctx, chartArea, colours.ground, mark));
    ctx.restore();
  },
});

// -- axes -------------------------------------------------------------------------------------

const named = (text) => ({ title: { display: true, text } });
const bare = { grid: { display: false } };
const whole = (text) => ({
  ...named(text), beginAtZero: true, suggestedMax: 1, ticks: { precision: 0 },
});
const fromNow = (at) => (at ? `${at < 0 ? "−" : "+"}${Math.abs(+at.toPrecision(6))} s` : "now");
const lastMinute = {
  ...named("time (seconds before now)"),
  ...bare,
  type: "linear",
  ticks: { stepSize: 15, maxRotation: 0, align: "inner", callback: fromNow },
};
const key = { display: true, align: "end", labels: { boxWidth: 10, boxHeight: 2, padding: 8 } };
const noKey = { display: false };
const bar = { maxBarThickness: 34, borderRadius: 2 };
const lineOf = (label, data, colour, more = {}) => ({
  label,
  data,
  borderColor: colour,
  backgroundColor: colour,
  borderWidth: 2,
  pointRadius: 0,
  ...more,
});

// Each second stands at its end: the last one is now.
const bySecond = (column) => column.map((y, n) => ({ x: n + 1 - column.length, y }));
const spanOfHistory = ({ arrived }) => [-arrived.length, 0];

// -- the small charts -------------------------------------------------------------------------

const rates = {
  name: "rates",
  type: "line",
  title: "Requests per second",
  options: {
    scales: { x: lastMinute, y: whole("requests/s") },
    plugins: { legend: { ...key, reverse: true } },
  },
  draw: (picture, { blue, green, lost }) => ({
    says:
      `${picture.history.arrived.at(-1)} arrived, ${picture.history.answered.at(-1)} answered` +
      saysChanges(picture),
    datasets: [ // the first is drawn on top
      lineOf("lost", bySecond(picture.history.lost), lost),
      lineOf("answers", bySecond(picture.history.answered), green),
      lineOf("arrivals", bySecond(picture.history.arrived), blue),
    ],
    span: spanOfHistory(picture.history),
    marks: marksOf(picture),
  }),
};

const waiting = {
  name: "waiting",
  type: "line",
  title: "Requests waiting",
  options: { scales: { x: lastMinute, y: whole("requests") }, plugins: { legend: noKey } },
  draw: (picture, { orange }) => ({
    says: `${picture.history.waiting.at(-1)} wait${saysChanges(picture)}`,
    datasets: [
      lineOf("waiting", bySecond(picture.history.waiting), orange, {
        fill: true,
        backgroundColor: pale(orange),
      }),
    ],
    span: spanOfHistory(picture.history),
    marks: marksOf(picture),
  }),
};

const times = {
  name: "times",
  type: "bar",
  title: "Time to answer",
  none: "no answer in the last minute",
  options: {
    scales: { x: bare, y: { ...named("time"), beginAtZero: true } },
    plugins: { legend: key },
  },
  draw: ({ times: all }, colours) => {
    const names = all.latency.p50 === null ? [] : ["wait", "run", "latency"];
    const [scale, unit] = all.latency.p99 >= 1 ? [1, "s"] : [1e3, "ms"];
    const of = (level) => names.map((name) => all[name][level] * scale);
    const column = (label) => ({
      ...bar, label, data: of(label), backgroundColor: colours[label],
    });
    return {
      says: names.map((name) => `${name} ${duration(all[name].p50)} at p50`).join(", "),
      labels: names,
      datasets: ["p50", "p90", "p99"].map(column),
      units: { y: `time (${unit})` },
    };
  },
};

// As broad as one size, where there is room for that.
const asBroadAsOne = ({ chart: { chartArea: area, scales: { x } } }) => {
  const one = area && x ? (0.8 * area.width) / (x.max - x.min) : 3;
  return Math.min(Math.max(one, 3), bar.maxBarThickness);
};

const sizes = {
  name: "sizes",
  type: "bar",
  title: "Batches by size",
  none: "no batch in the last minute",
  options: {
    scales: {
      x: {
        ...named("requests in a batch"), ...bare,
        type: "linear", offset: false, ticks: { precision: 0, includeBounds: false },
      },
      y: whole("batches"),
    },
    plugins: { legend: noKey, tooltip: { callbacks: { title: ([{ raw }]) => `of ${raw.x}` } } },
  },
  draw: ({ batch_sizes: counts }, { green }) => {
    const data = Object.entries(counts).map(([x, y]) => ({ x: Number(x), y }));
    const largest = Math.max(7, ...data.map(({ x }) => x));
    return {
      says: pairs(counts),
      datasets: [
        {
          ...bar, label: "batches", data, backgroundColor: green,
          minBarLength: 2, barThickness: asBroadAsOne,
        },
      ],
      span: [0, largest + 1],
    };
  },
};

const reasons = {
  name: "reasons",
  type: "bar",
  title: "Batches by release reason",
  none: "no batch in the last minute",
  options: { indexAxis: "y", scales: { x: whole("batches"), y: bare }, plugins: { legend: noKey } },
  draw: ({ reasons: counts }, { sky }) => ({
    says: pairs(counts),
    labels: Object.keys(counts),
    datasets: [
      { ...bar, label: "batches", data: Object.values(counts), backgroundColor: sky, minBarLength: 2 },
    ],
  }),
};

// -- time line --------------------------------------------------------------------------------

const FEW = 24;
const requestOf = (item) => item.dataset.requests[item.dataIndex];
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

// Up to now, while there is something to see there. Where it has been quiet for longer than all of
// this took, a few milliseconds would be a dot: then from the first arrival on, in milliseconds.
function clockOf(requests) {
  const first = Math.min(...requests.map(({ arrived }) => arrived));
  const last = Math.max(...requests.map(({ finished }) => finished ?? 0));
  const [begin, end] = -last > Math.max(last - first, 1) ? [first, last] : [first, 0];
  const margin = Math.max(0.005 * (end - begin), 0.0005);
  if (end === 0) {
    const text = "time (seconds before now)";
    return { at: (time) => time, span: [first - margin, 0], text, callback: fromNow };
  }
  const text = `time (ms since the first arrival); the last answer came ${since(-last)}`;
  const at = (time) => 1e3 * (time - first);
  return { at, span: [-1e3 * margin, at(last + margin)], text, callback: undefined };
}

function requestBars(requests, at, colours) {
  const lost = requests.filter(isLost);
  const span = (from, to) => (from === null ? null : [at(from), at(to)]);
  return [
    {
      ...bars,
      requests,
      data: requests.map(({ arrived, started, finished }) => span(arrived, started ?? finished ?? 0)),
      backgroundColor: colours.waits,
    },
    {
      ...bars,
      requests,
      data: requests.map(({ started, finished }) => span(started, finished ?? 0)),
      backgroundColor: requests.map(({ batch }) => colours[PALETTE[(batch ?? 0) % PALETTE.length]]),
      minBarLength: 2,
    },
    {
      type: "scatter",
      requests: lost,
      data: lost.map(({ id, finished }) => ({ x: at(finished), y: String(id) })),
      pointStyle: "crossRot",
      pointRadius: 4,
      borderWidth: 2,
      borderColor: colours.lost,
    },
  ];
}

const timeline = {
  name: "timeline",
  type: "bar",
  title: "The newest requests",
  note: "grey: waits · coloured by batch: runs · ×: lost",
  none: "no request yet",
  options: {
    indexAxis: "y",
    interaction: { mode: "nearest", axis: "y", intersect: false },
    scales: {
      x: { ...named("time"), type: "linear", ticks: { includeBounds: false, maxRotation: 0 } },
      y: { ...named("request"), ...bare, type: "category" },
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
  draw: (picture, colours) => {
    const { timeline: requests } = picture;
    const clock = clockOf(requests);
    return {
      says:
        `${requests.length} requests, ${requests.filter(isLost).length} of them lost` +
        saysChanges(picture),
      labels: rowsOf(requests),
      datasets: requestBars(requests, clock.at, colours),
      span: clock.span,
      units: { x: clock.text },
      ticks: clock.callback,
      marks: marksOf(picture).map((mark) => ({ ...mark, x: clock.at(mark.x) })),
    };
  },
};

// -- cards ------------------------------------------------------------------------------------

function card(title, note, ...children) {
  const caption = make("figcaption", "", make("span", "", title), " ", make("small", "", note));
  return make("figure", "ns-card", caption, ...children);
}

function chartCard({ name, type, title, note = "last minute", none = "", options, draw }) {
  const canvas = make("canvas");
  const nothing = make("p", "ns-nothing", none);
  const node = card(title, note, make("div", "ns-frame", canvas, nothing));
  node.classList.add(`ns-${name}`);
  canvas.dataset.chart = name;
  canvas.setAttribute("role", "img");
  const scales = { x: inColour(options.scales.x), y: inColour(options.scales.y) };
  const data = { labels: [], datasets: [] };
  const chart = new Chart(canvas, { type, data, options: { ...options, scales } });
  const show = (picture, colours) => {
    const { says, labels = [], datasets, span, units = {}, ticks, marks = [] } = draw(picture, colours);
    canvas.setAttribute("aria-label", `${title}: ${says || none}`);
    nothing.hidden = datasets.some((set) => set.data.length > 0);
    chart.data.labels = labels;
    // The same objects, or what a person has hidden by the legend would come back.
    const shown = chart.data.datasets;
    datasets.forEach((set, n) => (shown[n] = Object.assign(shown[n] ?? {}, set)));
    const axes = chart.options.scales;
    if (span) [axes.x.min, axes.x.max] = span;
    if (type === "line") axes.y.grace = marks.length ? "55%" : 0; // room for their labels
    if ("x" in units) axes.x.ticks.callback = ticks ?? Chart.Ticks.formatters.numeric;
    for (const [axis, text] of Object.entries(units)) axes[axis].title.text = text;
    Object.assign(chart, { marks, colours });
    chart.update();
  };
  return { node, show, remove: () => chart.destroy() };
}

// A sign and a colour of each outcome: colours alone do not tell them apart for all.
const SIGNS = {
  ...{ ok: ["■", "green"], failed: ["✕", "lost"], rejected: ["▲", "orange"] },
  ...{ expired: ["◆", "purple"], invalid: ["▼", "sky"], cancelled: ["●", "waits"] },
};

// How all requests ended, below the chart of those of the last minute.
function outcomesLine() {
  const node = make("div", "ns-outcomes");
  const show = ({ outcomes }) => {
    const all = total(Object.values(outcomes));
    const seen = Object.entries(outcomes).filter(([, count]) => count).sort((a, b) => b[1] - a[1]);
    const items = seen.map(([name, count]) => {
      const [sign, colour] = SIGNS[name] ?? ["✕", "lost"];
      const square = make("span", "ns-square", `${sign} `);
      square.setAttribute("aria-hidden", "true");
      square.style.color = `var(--ns-${colour})`;
      const share = ((100 * count) / all).toFixed(1);
      return make("span", "", square, `${name} ${count.toLocaleString("en")} (${share}%)`);
    });
    node.replaceChildren(make("small", "", "since the start:"), ...items);
  };
  return { node, show };
}

function ratesCard() {
  const [chart, outcomes] = [chartCard(rates), outcomesLine()];
  chart.node.append(outcomes.node);
  const show = (picture, colours) => {
    chart.show(picture, colours);
    outcomes.show(picture);
  };
  return { ...chart, show };
}

function chartCards() {
  return [ratesCard(), ...[waiting, times, sizes, reasons, timeline].map(chartCard)];
}
