// The form that sends requests from the page, and the same request as curl and Python code.
// Data of the server is inserted as text, never as markup.

import { formatDuration, make } from "./dashboard.js";

const JSON_TYPE = "application/json";
const TEXT_TYPE = "text/plain; charset=utf-8";
const ANSWERS = { "": "JSON", "image/png": "image (PNG)", "audio/wav": "audio (WAV)" };
const INPUT_KINDS = { text: "text", json: "JSON", bytes: "file" };
const FILE_NAMES = { "image/png": "answer.png", "audio/wav": "answer.wav" };
// Limits of a displayed answer: characters of a string or of an error, items of a list, files.
const [MOST_TEXT, MOST_ERROR, MOST_ITEMS, MOST_FILES] = [300, 5000, 50, 8];

function makeLabel(text, field) {
  return make("label", "", text, field);
}

function makeButton(text, click) {
  const node = make("button", "", text);
  node.type = "button";
  node.addEventListener("click", click);
  return node;
}

// -- one request in three forms ---------------------------------------------------------------

// A request has `way`, which is "text", "json" or "bytes" (a file), and `accept`, empty for JSON.
const hasParameters = ({ parameters }) => Object.keys(parameters).length > 0;
const makeBody = ({ inputs, parameters }) =>
  hasParameters({ parameters }) ? { inputs, parameters } : { inputs };
const getType = ({ type }) =>
  /^(image|audio|video)\//.test(type) ? type : "application/octet-stream";

// A file with parameters is sent as base64 in JSON: a body of bytes cannot hold parameters.
function encodeBase64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Error(`The file ${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}

async function makeRequest(request) {
  const { way, inputs, file, accept } = request;
  const json = (body) => [JSON_TYPE, JSON.stringify(body)];
  let [type, body] = [];
  if (way === "bytes" && !hasParameters(request)) [type, body] = [getType(file), file];
  else if (way === "bytes") {
    [type, body] = json(makeBody({ ...request, inputs: await encodeBase64(file) }));
  } else if (way === "text" && !hasParameters(request)) [type, body] = [TEXT_TYPE, inputs];
  else [type, body] = json(makeBody(request));
  const headers = { "Content-Type": type, ...(accept ? { Accept: accept } : {}) };
  return { method: "POST", headers, body };
}

// Quote for a POSIX shell: only a quote is special within quotes.
const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function writeCurl(request, url) {
  const command = writeCommand(request, url);
  return request.token ? `# export TOKEN='your token'  # if it is not set\n${command}` : command;
}

function writeCommand(request, url) {
  const { way, inputs, file, accept, token } = request;
  const lines = [`curl ${quote(url)}`];
  const add = (...options) => lines.push(`  ${options.join(" ")}`);
  if (token) add("-H", '"Authorization: Bearer $TOKEN"');
  if (accept) add("-H", quote(`Accept: ${accept}`), "-o", FILE_NAMES[accept]);
  const addType = (text) => add("-H", quote(`Content-Type: ${text}`));
  if (way === "bytes" && hasParameters(request)) {
    addType(JSON_TYPE);
    add("--data-binary", "@-");
    const end = `", "parameters": ${JSON.stringify(request.parameters)}}`;
    const encode = `base64 < ${quote(file.name)} | tr -d '\\n'`;
    const body = `{ printf '%s' '{"inputs": "'; ${encode}; printf '%s' ${quote(end)}; }`;
    return `${body} |\n${lines.join(" \\\n")}`;
  }
  if (way === "bytes") {
    addType(getType(file));
    add("--data-binary", quote(`@${file.name}`));
  } else if (way === "text" && !hasParameters(request)) {
    addType(TEXT_TYPE);
    add("--data-raw", quote(inputs));
  } else {
    addType(JSON_TYPE);
    add("--data-raw", quote(JSON.stringify(makeBody(request))));
  }
  return lines.join(" \\\n");
}

// Write a value as a Python literal. JSON strings are valid Python strings.
function toPython(value) {
  if (value === null) return "None";
  if (value === true || value === false) return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(toPython).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const items = Object.entries(value).map(([name, item]) => `${toPython(name)}: ${toPython(item)}`);
  return `{${items.join(", ")}}`;
}

export function writePython(request, url) {
  const { way, inputs, file, accept, token, parameters } = request;
  const imports = ["import httpx"];
  const headers = {};
  if (accept) headers.Accept = toPython(accept);
  if (token) {
    imports.unshift("import os", "");
    headers.Authorization = 'f"Bearer {os.environ[\'TOKEN\']}"';
  }
  const lines = [];
  if (way === "bytes" && hasParameters(request)) {
    imports.unshift("import base64");
    const encoded = `base64.b64encode(open(${toPython(file.name)}, "rb").read()).decode()`;
    lines.push(`json={"inputs": ${encoded}, "parameters": ${toPython(parameters)}},`);
  } else if (way === "bytes") {
    headers["Content-Type"] = toPython(getType(file));
    lines.push(`content=open(${toPython(file.name)}, "rb").read(),`);
  } else if (way === "text" && !hasParameters(request)) {
    headers["Content-Type"] = toPython(TEXT_TYPE);
    lines.push(`content=${toPython(inputs)},`);
  } else lines.push(`json=${toPython(makeBody(request))},`);
  const pairs = Object.entries(headers).map(([name, value]) => `${toPython(name)}: ${value}`);
  if (pairs.length) lines.push(`headers={${pairs.join(", ")}},`);
  const call = [toPython(url) + ",", ...lines, "timeout=60,"].map((line) => `    ${line}`);
  const end = accept
    ? ["answer.raise_for_status()", `open("${FILE_NAMES[accept]}", "wb").write(answer.content)`]
    : ["print(answer.status_code, answer.json())"];
  const setToken = token ? ['# os.environ["TOKEN"] = "your token"  # if it is not set'] : [];
  return [...imports, "", ...setToken, "answer = httpx.post(", ...call, ")", ...end].join("\n");
}

// -- the answer -------------------------------------------------------------------------------

// Format an answer as JSON with long strings and lists cut.
function formatAnswer(value, most) {
  const cut = (_, item) => {
    if (typeof item === "string" && item.length > most) {
      return `${item.slice(0, 60)}… (${item.length} characters)`;
    }
    if (Array.isArray(item) && item.length > MOST_ITEMS) {
      return [...item.slice(0, MOST_ITEMS), `… (${item.length} items)`];
    }
    return item;
  };
  return JSON.stringify(value, cut, 2);
}

// Find the PNG and WAV files in an answer: base64 strings with the first bytes of these formats.
function findFiles(value) {
  if (typeof value === "string") {
    if (value.startsWith("iVBORw0KGgo")) return [["image/png", value]];
    return value.startsWith("UklGR") ? [["audio/wav", value]] : [];
  }
  if (value === null || typeof value !== "object") return [];
  return Object.values(value).flatMap(findFiles);
}

function makeMedia(type, data) {
  const node = make(type.startsWith("audio/") ? "audio" : "img");
  if (node.tagName === "AUDIO") node.controls = true;
  else node.alt = "image in the answer";
  node.src = `data:${type};base64,${data}`;
  return node;
}

async function makeAnswer(response) {
  const type = (response.headers.get("content-type") ?? "").split(";")[0];
  if (/^(image|audio)\//.test(type)) {
    return [makeMedia(type, await encodeBase64(await response.blob()))];
  }
  const text = await response.text();
  try {
    const value = JSON.parse(text);
    const files = findFiles(value).slice(0, MOST_FILES);
    const shown = formatAnswer(value, response.ok ? MOST_TEXT : MOST_ERROR);
    return [make("pre", "", shown), ...files.map(([kind, data]) => makeMedia(kind, data))];
  } catch {
    return [make("pre", "", text)];
  }
}

// Format a Server-Timing header, such as "queue;dur=1.5, inference;dur=20" in milliseconds.
function formatTiming(header) {
  const read = (name) => header.match(new RegExp(`\\b${name};dur=([\\d.]+)`))?.[1];
  const [waited, ran] = [read("queue"), read("inference")];
  if (waited === undefined || ran === undefined) return header;
  return `waited ${formatDuration(waited / 1e3)}, ran ${formatDuration(ran / 1e3)}`;
}

function makeHeaderList(response) {
  const names = ["Server-Timing", "X-Batch-Size", "X-Request-ID"];
  const pairs = names.map((name) => [name, response.headers.get(name)]);
  return make("dl", "ns-facts", ...pairs.filter(([, value]) => value).flatMap(([name, value]) => {
    const text = make("dd", "", name === "Server-Timing" ? formatTiming(value) : value);
    text.title = value;
    return [make("dt", "", name), text];
  }));
}

// -- the form ---------------------------------------------------------------------------------

function makeSelect(names) {
  const node = make("select");
  node.replaceChildren(...Object.entries(names).map(([value, text]) => new Option(text, value)));
  return node;
}

function parseJson(text, name) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${name}: invalid JSON: ${error.message}`);
  }
}

// The fields of the form; `read` returns a request, or throws an error with a message to show.
function makeFields(example) {
  const [way, accept] = [makeSelect(INPUT_KINDS), makeSelect(ANSWERS)];
  const [text, json] = [make("textarea", "ns-input"), make("textarea", "ns-input ns-json")];
  const parameters = make("textarea", "ns-parameters");
  const file = make("input");
  Object.assign(file, { type: "file", accept: example.files });
  Object.assign(parameters, { rows: 1, spellcheck: false });
  json.spellcheck = false;
  text.value = typeof example.inputs === "string" ? example.inputs : "";
  json.value = JSON.stringify(example.inputs ?? "");
  parameters.value = JSON.stringify(example.parameters);
  const inputs = {
    text: makeLabel("input", text),
    json: makeLabel("input, as JSON", json),
    bytes: makeLabel("file", file),
  };
  for (const option of [...way.options]) {
    if (!example.accepts.includes(option.value)) option.remove();
  }
  for (const option of [...accept.options]) {
    if (option.value && !example.answers.includes(option.value)) option.remove();
  }
  way.value = example.accepts.includes(example.way) ? example.way : way.options[0]?.value;
  const [wayLabel, acceptLabel] = [makeLabel("send as", way), makeLabel("answer as", accept)];
  wayLabel.hidden = way.options.length < 2;
  acceptLabel.hidden = accept.options.length < 2;
  const update = () => {
    for (const [name, node] of Object.entries(inputs)) node.hidden = name !== way.value;
  };
  way.addEventListener("change", update);
  update();
  const read = () => {
    const given = parseJson(parameters.value.trim() || "{}", "parameters");
    if (given === null || typeof given !== "object" || Array.isArray(given)) {
      throw new Error('parameters: must be a JSON object, for example {"top_k": 3}');
    }
    const values = {
      ...{ text: () => text.value, bytes: () => "" },
      json: () => parseJson(json.value, "input"),
    };
    if (way.value === "bytes" && !file.files.length) throw new Error("Choose a file first.");
    return {
      ...{ way: way.value, inputs: values[way.value](), file: file.files[0] },
      ...{ parameters: given, accept: accept.value, token: example.token },
    };
  };
  const nodes = [...Object.values(inputs), makeLabel("parameters, as JSON", parameters)];
  return { nodes, choices: [wayLabel, acceptLabel], read };
}

// The same request as code, with a button to copy it.
function makeCode(read, getUrl) {
  const summary = make("summary", "", "the same request as curl or Python");
  const node = make("details", "ns-copy", summary);
  const forms = Object.entries({ curl: writeCurl, Python: writePython }).map(([name, write]) => {
    const text = make("pre");
    text.tabIndex = 0;
    const copy = makeButton(`Copy ${name}`, async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text); // only a secure page may write to the clipboard
        copy.textContent = "Press Ctrl+C";
      }
      setTimeout(() => (copy.textContent = `Copy ${name}`), 2000);
    });
    text.dataset.form = name;
    node.append(make("div", "ns-row", make("span", "", name), copy), text);
    return { text, copy, write };
  });
  const update = () => {
    for (const { text, copy, write } of forms) {
      try {
        text.textContent = write(read(), getUrl());
        copy.disabled = false;
      } catch (error) {
        text.textContent = error.message;
        copy.disabled = true;
      }
    }
  };
  node.addEventListener("toggle", update);
  return { node, update };
}

function makeForm(example) {
  // Relative, because a proxy may serve the page below a prefix.
  const getUrl = () => new URL(example.path || ".", location.href).href;
  const { nodes, choices, read } = makeFields(example);
  const send = make("button", "", "Send");
  const cancel = makeButton("Cancel", () => running?.abort());
  const [status, answer] = [make("p", "ns-status"), make("div", "ns-answer")];
  const form = make("form", "", ...nodes, make("div", "ns-row", ...choices, send, cancel));
  const code = makeCode(read, getUrl);
  let running = null;
  status.setAttribute("role", "status");
  cancel.hidden = true;

  const show = (text, isError, ...content) => {
    status.textContent = text;
    status.classList.toggle("ns-rejected", isError);
    answer.replaceChildren(...content);
  };
  const sendRequest = async () => {
    const request = read();
    const began = performance.now();
    const options = { ...(await makeRequest(request)), signal: running.signal };
    const response = await fetch(getUrl(), options);
    const nodes = await makeAnswer(response);
    const took = formatDuration((performance.now() - began) / 1e3);
    const heading = `${response.status} ${response.statusText} in ${took}`;
    show(heading, !response.ok, makeHeaderList(response), ...nodes);
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return;
    running = new AbortController();
    send.disabled = true;
    cancel.hidden = false;
    show("Waiting for the answer…", false);
    try {
      await sendRequest();
    } catch (error) {
      const texts = { AbortError: "Cancelled.", TypeError: "The server cannot be reached." };
      show(texts[error.name] ?? error.message, true);
    }
    running = null;
    send.disabled = false;
    cancel.hidden = true;
  });
  form.addEventListener("input", code.update);
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  return [form, status, answer, code.node];
}

// Fill `root` with the form. Each snapshot calls `show` with an example request, or with null while
// the model is not loaded.
export function makeTryIt(root) {
  let shown = "";
  const show = (example) => {
    const next = JSON.stringify(example ?? null);
    // Keep the text in the fields, also while the model is loaded again.
    if (next === shown || (!example && shown)) return;
    shown = example ? next : "";
    const heading = make("h2", "", "Try it ", make("small", "", example?.task ?? ""));
    const body = example ? makeForm(example) : [make("p", "", "The model is not loaded.")];
    root.replaceChildren(heading, ...body);
  };
  return { show };
}
