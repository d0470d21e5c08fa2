// The charts of the dashboard. Each has a function `draw` that reads a snapshot (see snapshot.py).
// assets.py puts this file before dashboard.js into one module.

const Chart = globalThis.Chart;
Object.assign(Chart.defaults, { animation: false, maintainAspectRatio: false });
Object.assign(Chart.defaults.font, { family: "system-ui, sans-serif", size: 11 });

// -- helpers ----------------------------------------------------------------------------------

function make(tag, name = "", ...children) {
  const node = document.createElement(tag);
  node.className = name;
  node.append(...children);
  return node;
}

// Leave an unchanged node alone: a screen reader would read it again.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function formatDuration(seconds) {
  if (seconds < 1e-3) return `${(seconds * 1e6).toFixed(0)} µs`;
  return seconds < 1 ? `${(seconds * 1e3).toFixed(1)} ms` : `${seconds.toFixed(2)} s`;
}

function formatAge(seconds) {
  if (seconds < 1) return "just now";
  if (seconds < 100) return `${Math.round(seconds)} s ago`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min ago`;
  return `${Math.round(seconds / 3600)} h ago`;
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
const formatCounts = (counts) =>
  Object.entries(counts).map(([name, n]) => `${name}: ${n}`).join(", ");

// -- colours ----------------------------------------------------------------------------------

const COLOURS = [
  ...["blue", "orange", "green", "sky", "purple", "lost", "waits", "p50", "p90", "p99"],
  ...["text", "muted", "line", "ground"],
];
const PALETTE = ["blue", "orange", "green", "sky", "purple"];

// A canvas ignores CSS: `probe` is a node that resolves the variables of dashboard.css.
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

const getMuted = () => Chart.defaults.color;
const getFaint = () => Chart.defaults.borderColor;
const makePale = (rgb) => rgb.replace("rgb(", "rgba(").replace(")", ", 0.3)");

// Functions, so that each update reads the colours anew.
const colourAxis = ({ ticks, grid, title, ...rest }) => ({
  ...rest,
  ticks: { ...ticks, color: getMuted },
  grid: { ...grid, color: getFaint },
  border: { color: getFaint },
  title: { ...title, color: getMuted },
});

// -- marks of policy changes ------------------------------------------------------------------

// Rows of labels, and the height of one in pixels.
const [ROWS, ROW] = [3, 13];

// Leave out the names of the options, and their values too if the policy is still long.
function abbreviate(policy) {
  const short = policy.replace(/\b\w+=/g, "");
  if (short.length <= 24) return short;
  const bracket = short.indexOf("(");
  return bracket > 0 && bracket < 24 ? `${short.slice(0, bracket)}(…)` : `${short.slice(0, 23)}…`;
}

const makeMarks = ({ changes = [] }) =>
  changes.map(({ ago, policy, reason }) => ({
    x: -ago,
    fault: reason === "fault",
    label: `${reason === "fault" ? "fault → " : ""}${abbreviate(policy)}`,
  }));

const describeChanges = ({ changes = [] }) =>
  changes
    .map(({ ago, policy }) => `; policy set to ${abbreviate(policy)} ${formatAge(ago)}`)
    .join("");

// Place each label in the first row with room, the newest first; its row is -1 if none has room.
function placeLabels(marks, { left, right }, widthOf) {
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
    const visible = marks.map((mark) => ({
      ...mark,
      at: scales.x.getPixelForValue(mark.x),
      colour: mark.fault ? colours.lost : colours.text,
    })).filter(({ at }) => at >= chartArea.left && at <= chartArea.right);
    ctx.save();
    Object.assign(ctx, { lineWidth: 1.5, textBaseline: "top", textAlign: "left" });
    ctx.font = `${Chart.defaults.font.size}px ${Chart.defaults.font.family}`;
    ctx.setLineDash([4, 3]);
    visible.forEach((mark) => drawLine(ctx, chartArea, mark));
    placeLabels(visible, chartArea, (label) => ctx.measureText(label).width)
      .filter(({ row }) => row >= 0)
      .forEach((mark) => drawLabel(ctx, chartArea, colours.ground, mark));
    ctx.restore();
  },
});

// -- axes -------------------------------------------------------------------------------------

const withTitle = (text) => ({ title: { display: true, text } });
const noGrid = { grid: { display: false } };
const countAxis = (text) => ({
  ...withTitle(text), beginAtZero: true, suggestedMax: 1, ticks: { precision: 0 },
});
const formatOffset = (at) => (at ? `${at < 0 ? "−" : "+"}${Math.abs(+at.toPrecision(6))} s` : "now");
const lastMinute = {
  ...withTitle("time (seconds before now)"),
  ...noGrid,
  type: "linear",
  ticks: { stepSize: 15, maxRotation: 0, align: "inner", callback: formatOffset },
};
const legend = { display: true, align: "end", labels: { boxWidth: 10, boxHeight: 2, padding: 8 } };
const noLegend = { display: false };
const bar = { maxBarThickness: 34, borderRadius: 2 };
const makeLine = (label, data, colour, more = {}) => ({
  label,
  data,
  borderColor: colour,
  backgroundColor: colour,
  borderWidth: 2,
  pointRadius: 0,
  ...more,
});

// Plot each second at its end: the last one is now.
const toPoints = (column) => column.map((y, n) => ({ x: n + 1 - column.length, y }));
const historySpan = ({ arrived }) => [-arrived.length, 0];

// -- the small charts -------------------------------------------------------------------------

const rates = {
  name: "rates",
  type: "line",
  title: "Requests per second",
  options: {
    scales: { x: lastMinute, y: countAxis("requests/s") },
    plugins: { legend: { ...legend, reverse: true } },
  },
  draw: (snapshot, { blue, green, lost }) => ({
    description:
      `${snapshot.history.arrived.at(-1)} arrived, ${snapshot.history.answered.at(-1)} answered` +
      describeChanges(snapshot),
    datasets: [ // the first is on top
      makeLine("lost", toPoints(snapshot.history.lost), lost),
      makeLine("answers", toPoints(snapshot.history.answered), green),
      makeLine("arrivals", toPoints(snapshot.history.arrived), blue),
    ],
    span: historySpan(snapshot.history),
    marks: makeMarks(snapshot),
  }),
};

const waiting = {
  name: "waiting",
  type: "line",
  title: "Requests waiting",
  options: { scales: { x: lastMinute, y: countAxis("requests") }, plugins: { legend: noLegend } },
  draw: (snapshot, { orange }) => ({
    description: `${snapshot.history.waiting.at(-1)} waiting${describeChanges(snapshot)}`,
    datasets: [
      makeLine("waiting", toPoints(snapshot.history.waiting), orange, {
        fill: true,
        backgroundColor: makePale(orange),
      }),
    ],
    span: historySpan(snapshot.history),
    marks: makeMarks(snapshot),
  }),
};

const times = {
  name: "times",
  type: "bar",
  title: "Time to answer",
  none: "no answers in the last minute",
  options: {
    scales: { x: noGrid, y: { ...withTitle("time"), beginAtZero: true } },
    plugins: { legend },
  },
  draw: ({ times: all }, colours) => {
    const names = all.latency.p50 === null ? [] : ["wait", "run", "latency"];
    const [scale, unit] = all.latency.p99 >= 1 ? [1, "s"] : [1e3, "ms"];
    const of = (level) => names.map((name) => all[name][level] * scale);
    const column = (label) => ({
      ...bar, label, data: of(label), backgroundColor: colours[label],
    });
    return {
      description: names.map((name) => `${name} p50 ${formatDuration(all[name].p50)}`).join(", "),
      labels: names,
      datasets: ["p50", "p90", "p99"].map(column),
      units: { y: `time (${unit})` },
    };
  },
};

// As wide as one batch size on the axis, within limits.
const measureBar = ({ chart: { chartArea: area, scales: { x } } }) => {
  const one = area && x ? (0.8 * area.width) / (x.max - x.min) : 3;
  return Math.min(Math.max(one, 3), bar.maxBarThickness);
};

const sizes = {
  name: "sizes",
  type: "bar",
  title: "Batches by size",
  none: "no batches in the last minute",
  options: {
    scales: {
      x: {
        ...withTitle("requests in a batch"), ...noGrid,
        type: "linear", offset: false, ticks: { precision: 0, includeBounds: false },
      },
      y: countAxis("batches"),
    },
    plugins: {
      legend: noLegend,
      tooltip: { callbacks: { title: ([{ raw }]) => `batch size ${raw.x}` } },
    },
  },
  draw: ({ batch_sizes: counts }, { green }) => {
    const data = Object.entries(counts).map(([x, y]) => ({ x: Number(x), y }));
    const largest = Math.max(7, ...data.map(({ x }) => x));
    return {
      description: formatCounts(counts),
      datasets: [
        {
          ...bar, label: "batches", data, backgroundColor: green,
          minBarLength: 2, barThickness: measureBar,
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
  none: "no batches in the last minute",
  options: {
    indexAxis: "y",
    scales: { x: countAxis("batches"), y: noGrid },
    plugins: { legend: noLegend },
  },
  draw: ({ reasons: counts }, { sky }) => ({
    description: formatCounts(counts),
    labels: Object.keys(counts),
    datasets: [
      {
        ...bar, label: "batches", data: Object.values(counts), backgroundColor: sky,
        minBarLength: 2,
      },
    ],
  }),
};

// -- timeline ---------------------------------------------------------------------------------

const FEW = 24;
const getRequest = (item) => item.dataset.requests[item.dataIndex];
const isLost = ({ outcome }) => outcome !== "ok" && outcome !== "unfinished";
const bars = { grouped: false, barPercentage: 1, categoryPercentage: 0.84, maxBarThickness: 14 };

function describeRequest(item) {
  const { arrived, started, finished, batch, size, reason, outcome } = getRequest(item);
  const lines = [outcome, `waited ${formatDuration((started ?? finished ?? 0) - arrived)}`];
  if (started === null) return lines;
  const why = reason ? `, released by: ${reason}` : "";
  const ran = `ran ${formatDuration((finished ?? 0) - started)}`;
  return [...lines, ran, `batch ${batch}, size ${size}${why}`];
}

// Add empty rows below a few requests, so that their bars stay close together.
function makeRows(requests) {
  const ids = requests.map(({ id }) => String(id));
  return [...ids, ...Array(Math.max(0, FEW - ids.length)).fill("")];
}

// Choose the time axis. It ends now, unless no request ran for longer than all of them took: then a
// few milliseconds would be a dot, so it spans from the first arrival to the last answer.
function chooseClock(requests) {
  const first = Math.min(...requests.map(({ arrived }) => arrived));
  const last = Math.max(...requests.map(({ finished }) => finished ?? 0));
  const [begin, end] = -last > Math.max(last - first, 1) ? [first, last] : [first, 0];
  const margin = Math.max(0.005 * (end - begin), 0.0005);
  if (end === 0) {
    const text = "time (seconds before now)";
    return { at: (time) => time, span: [first - margin, 0], text, callback: formatOffset };
  }
  const text = `time (ms since the first arrival); last answer ${formatAge(-last)}`;
  const at = (time) => 1e3 * (time - first);
  return { at, span: [-1e3 * margin, at(last + margin)], text, callback: undefined };
}

function makeBars(requests, at, colours) {
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
  title: "Newest requests",
  note: "grey: waiting · coloured by batch: running · ×: lost",
  none: "no requests yet",
  options: {
    indexAxis: "y",
    interaction: { mode: "nearest", axis: "y", intersect: false },
    scales: {
      x: { ...withTitle("time"), type: "linear", ticks: { includeBounds: false, maxRotation: 0 } },
      y: { ...withTitle("request"), ...noGrid, type: "category" },
    },
    plugins: {
      legend: noLegend,
      tooltip: {
        displayColors: false,
        filter: (item, n) => n === 0, // one for the two bars of a request
        callbacks: { title: ([item]) => `request ${getRequest(item).id}`, label: describeRequest },
      },
    },
  },
  draw: (snapshot, colours) => {
    const { timeline: requests } = snapshot;
    const clock = chooseClock(requests);
    return {
      description:
        `${requests.length} requests, ${requests.filter(isLost).length} lost` +
        describeChanges(snapshot),
      labels: makeRows(requests),
      datasets: makeBars(requests, clock.at, colours),
      span: clock.span,
      units: { x: clock.text },
      ticks: clock.callback,
      marks: makeMarks(snapshot).map((mark) => ({ ...mark, x: clock.at(mark.x) })),
    };
  },
};

// -- cards ------------------------------------------------------------------------------------

function makeCard(title, note, ...children) {
  const caption = make("figcaption", "", make("span", "", title), " ", make("small", "", note));
  return make("figure", "ns-card", caption, ...children);
}

function makeChartCard({ name, type, title, note = "last minute", none = "", options, draw }) {
  const canvas = make("canvas");
  const empty = make("p", "ns-no-data", none);
  const node = makeCard(title, note, make("div", "ns-frame", canvas, empty));
  node.classList.add(`ns-${name}`);
  canvas.dataset.chart = name;
  canvas.setAttribute("role", "img");
  const scales = { x: colourAxis(options.scales.x), y: colourAxis(options.scales.y) };
  const data = { labels: [], datasets: [] };
  const chart = new Chart(canvas, { type, data, options: { ...options, scales } });
  const show = (snapshot, colours) => {
    const drawn = draw(snapshot, colours);
    const { description, labels = [], datasets, span, units = {}, ticks, marks = [] } = drawn;
    canvas.setAttribute("aria-label", `${title}: ${description || none}`);
    empty.hidden = datasets.some((set) => set.data.length > 0);
    chart.data.labels = labels;
    // Keep the same objects, so that datasets hidden by a click on the legend stay hidden.
    const shown = chart.data.datasets;
    datasets.forEach((set, n) => (shown[n] = Object.assign(shown[n] ?? {}, set)));
    const axes = chart.options.scales;
    if (span) [axes.x.min, axes.x.max] = span;
    if (type === "line") axes.y.grace = marks.length ? "55%" : 0; // room for the labels
    if ("x" in units) axes.x.ticks.callback = ticks ?? Chart.Ticks.formatters.numeric;
    for (const [axis, text] of Object.entries(units)) axes[axis].title.text = text;
    Object.assign(chart, { marks, colours });
    chart.update();
  };
  return { node, show, remove: () => chart.destroy() };
}

// Sign and colour of each outcome: not every reader can tell them apart by colour alone.
const SIGNS = {
  ...{ ok: ["■", "green"], failed: ["✕", "lost"], rejected: ["▲", "orange"] },
  ...{ expired: ["◆", "purple"], invalid: ["▼", "sky"], cancelled: ["●", "waits"] },
};

// Outcomes of all requests, below the chart of the last minute.
function makeOutcomesLine() {
  const node = make("div", "ns-outcomes");
  const show = ({ outcomes }) => {
    const all = sum(Object.values(outcomes));
    const found = Object.entries(outcomes).filter(([, count]) => count).sort((a, b) => b[1] - a[1]);
    const items = found.map(([name, count]) => {
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

function makeRatesCard() {
  const [chart, outcomes] = [makeChartCard(rates), makeOutcomesLine()];
  chart.node.append(outcomes.node);
  const show = (snapshot, colours) => {
    chart.show(snapshot, colours);
    outcomes.show(snapshot);
  };
  return { ...chart, show };
}

function makeChartCards() {
  return [makeRatesCard(), ...[waiting, times, sizes, reasons, timeline].map(makeChartCard)];
}
