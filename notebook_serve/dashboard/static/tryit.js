// The form that asks the model from the page, and the same request as a command and as a program.
// Whatever comes from the server is put in as text, never as markup.

import { duration, make } from "./dashboard.js";

const JSON_TYPE = "application/json";
const TEXT_TYPE = "text/plain; charset=utf-8";
const ANSWERS = { "": "JSON", "image/png": "picture (PNG)", "audio/wav": "sound (WAV)" };
const WAYS = { text: "text", json: "JSON", bytes: "file" };
const SAVED = { "image/png": "answer.png", "audio/wav": "answer.wav" };
// What is shown of a long answer: characters of a string, items of a list, pictures.
// An error is read to its end.
const [MOST_TEXT, MOST_ERROR, MOST_ITEMS, MOST_FILES] = [300, 5000, 50, 8];

function labelled(text, field) {
  return make("label", "", text, field);
}

function button(text, click) {
  const node = make("button", "", text);
  node.type = "button";
  node.addEventListener("click", click);
  return node;
}

// -- one request in three forms ---------------------------------------------------------------

// What is asked: `way` is text, json, or bytes with a file; `accept` is empty for JSON.
const hasParameters = ({ parameters }) => Object.keys(parameters).length > 0;
const bodyOf = ({ inputs, parameters }) =>
  hasParameters({ parameters }) ? { inputs, parameters } : { inputs };
const typeOf = ({ type }) =>
  /^(image|audio|video)\//.test(type) ? type : "application/octet-stream";

// A file with parameters goes as base64 within JSON: a body of bytes has no room for them.
function base64(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });
}

async function optionsOf(question) {
  const { way, inputs, file, accept } = question;
  const json = (body) => [JSON_TYPE, JSON.stringify(body)];
  let [type, body] = [];
  if (way === "bytes" && !hasParameters(question)) [type, body] = [typeOf(file), file];
  else if (way === "bytes") {
    [type, body] = json(bodyOf({ ...question, inputs: await base64(file) }));
  } else if (way === "text" && !hasParameters(question)) [type, body] = [TEXT_TYPE, inputs];
  else [type, body] = json(bodyOf(question));
  const headers = { "Content-Type": type, ...(accept ? { Accept: accept } : {}) };
  return { method: "POST", headers, body };
}

// For a POSIX shell: nothing but a quote is special between quotes.
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function curl(question, url) {
  const command = curlCommand(question, url);
  return question.token ? `# export TOKEN='your token'  # if it is not set\n${command}` : command;
}

function curlCommand(question, url) {
  const { way, inputs, file, accept, token } = question;
  const lines = [`curl ${quoted(url)}`];
  const add = (...options) => lines.push(`  ${options.join(" ")}`);
  if (token) add("-H", '"Authorization: Bearer $TOKEN"');
  if (accept) add("-H", quoted(`Accept: ${accept}`), "-o", SAVED[accept]);
  const type = (text) => add("-H", quoted(`Content-Type: ${text}`));
  if (way === "bytes" && hasParameters(question)) {
    type(JSON_TYPE);
    add("--data-binary", "@-");
    const end = `", "parameters": ${JSON.stringify(question.parameters)}}`;
    const encode = `base64 < ${quoted(file.name)} | tr -d '\\n'`;
    const body = `{ printf '%s' '{"inputs": "'; ${encode}; printf '%s' ${quoted(end)}; }`;
    return `${body} |\n${lines.join(" \\\n")}`;
  }
  if (way === "bytes") {
    type(typeOf(file));
    add("--data-binary", quoted(`@${file.name}`));
  } else if (way === "text" && !hasParameters(question)) {
    type(TEXT_TYPE);
    add("--data-raw", quoted(inputs));
  } else {
    type(JSON_TYPE);
    add("--data-raw", quoted(JSON.stringify(bodyOf(question))));
  }
  return lines.join(" \\\n");
}

// A value as Python writes it. JSON's strings are Python's as well.
function literal(value) {
  if (value === null) return "None";
  if (value === true || value === false) return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const items = Object.entries(value).map(([name, item]) => `${literal(name)}: ${literal(item)}`);
  return `{${items.join(", ")}}`;
}

export function python(question, url) {
  const { way, inputs, file, accept, token, parameters } = question;
  const imports = ["import httpx"];
  const headers = {};
  if (accept) headers.Accept = literal(accept);
  if (token) {
    imports.unshift("import os", "");
    headers.Authorization = 'f"Bearer {os.environ[\'TOKEN\']}"';
  }
  const lines = [];
  if (way === "bytes" && hasParameters(question)) {
    imports.unshift("import base64");
    const encoded = `base64.b64encode(open(${literal(file.name)}, "rb").read()).decode()`;
    lines.push(`json={"inputs": ${encoded}, "parameters": ${literal(parameters)}},`);
  } else if (way === "bytes") {
    headers["Content-Type"] = literal(typeOf(file));
    lines.push(`content=open(${literal(file.name)}, "rb").read(),`);
  } else if (way === "text" && !hasParameters(question)) {
    headers["Content-Type"] = literal(TEXT_TYPE);
    lines.push(`content=${literal(inputs)},`);
  } else lines.push(`json=${literal(bodyOf(question))},`);
  const pairs = Object.entries(headers).map(([name, value]) => `${literal(name)}: ${value}`);
  if (pairs.length) lines.push(`headers={${pairs.join(", ")}},`);
  const call = [literal(url) + ",", ...lines, "timeout=60,"].map((line) => `    ${line}`);
  const end = accept
    ? ["answer.raise_for_status()", `open("${SAVED[accept]}", "wb").write(answer.content)`]
    : ["print(answer.status_code, answer.json())"];
  const setting = token ? ['# os.environ["TOKEN"] = "your token"  # if it is not set'] : [];
  return [...imports, "", ...setting, "answer = httpx.post(", ...call, ")", ...end].join("\n");
}

// -- the answer -------------------------------------------------------------------------------

// What a person reads of it: long strings and lists are cut.
function readable(value, most) {
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

// Pictures and sounds within an answer are base64 of their files, which begin so.
function filesIn(value) {
  if (typeof value === "string") {
    if (value.startsWith("iVBORw0KGgo")) return [["image/png", value]];
    return value.startsWith("UklGR") ? [["audio/wav", value]] : [];
  }
  if (value === null || typeof value !== "object") return [];
  return Object.values(value).flatMap(filesIn);
}

function media(type, data) {
  const node = make(type.startsWith("audio/") ? "audio" : "img");
  if (node.tagName === "AUDIO") node.controls = true;
  else node.alt = "a picture of the answer";
  node.src = `data:${type};base64,${data}`;
  return node;
}

async function answerNodes(response) {
  const type = (response.headers.get("content-type") ?? "").split(";")[0];
  if (/^(image|audio)\//.test(type)) return [media(type, await base64(await response.blob()))];
  const text = await response.text();
  try {
    const value = JSON.parse(text);
    const files = filesIn(value).slice(0, MOST_FILES).map(([kind, data]) => media(kind, data));
    return [make("pre", "", readable(value, response.ok ? MOST_TEXT : MOST_ERROR)), ...files];
  } catch {
    return [make("pre", "", text)];
  }
}

// "queue;dur=1.5, inference;dur=20" (in milliseconds) as a person reads it.
function timingOf(header) {
  const read = (name) => header.match(new RegExp(`\\b${name};dur=([\\d.]+)`))?.[1];
  const [waited, ran] = [read("queue"), read("inference")];
  if (waited === undefined || ran === undefined) return header;
  return `waited ${duration(waited / 1e3)}, ran ${duration(ran / 1e3)}`;
}

function factsOf(response) {
  const names = ["Server-Timing", "X-Batch-Size", "X-Request-ID"];
  const known = names.map((name) => [name, response.headers.get(name)]).filter(([, value]) => value);
  return make("dl", "ns-facts", ...known.flatMap(([name, value]) => {
    const said = make("dd", "", name === "Server-Timing" ? timingOf(value) : value);
    said.title = value;
    return [make("dt", "", name), said];
  }));
}

// -- the form ---------------------------------------------------------------------------------

function choice(names) {
  const node = make("select");
  node.replaceChildren(...Object.entries(names).map(([value, text]) => new Option(text, value)));
  return node;
}

function parsed(text, what) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${what}: not JSON: ${error.message}`);
  }
}

// The fields, and what they say; `read` throws a sentence where that cannot be asked.
function fields(asked) {
  const [way, accept] = [choice(WAYS), choice(ANSWERS)];
  const [text, json] = [make("textarea", "ns-input"), make("textarea", "ns-input ns-json")];
  const parameters = make("textarea", "ns-parameters");
  const file = make("input");
  Object.assign(file, { type: "file", accept: asked.files });
  Object.assign(parameters, { rows: 1, spellcheck: false });
  json.spellcheck = false;
  text.value = typeof asked.inputs === "string" ? asked.inputs : "";
  json.value = JSON.stringify(asked.inputs ?? "");
  parameters.value = JSON.stringify(asked.parameters);
  const inputs = {
    text: labelled("input", text),
    json: labelled("input, as JSON", json),
    bytes: labelled("file", file),
  };
  for (const option of [...way.options]) if (!asked.accepts.includes(option.value)) option.remove();
  for (const option of [...accept.options]) {
    if (option.value && !asked.answers.includes(option.value)) option.remove();
  }
  way.value = asked.accepts.includes(asked.way) ? asked.way : way.options[0]?.value;
  const [waySaid, acceptSaid] = [labelled("send as", way), labelled("answer as", accept)];
  waySaid.hidden = way.options.length < 2;
  acceptSaid.hidden = accept.options.length < 2;
  const update = () => {
    for (const [name, node] of Object.entries(inputs)) node.hidden = name !== way.value;
  };
  way.addEventListener("change", update);
  update();
  const read = () => {
    const given = parsed(parameters.value.trim() || "{}", "parameters");
    if (given === null || typeof given !== "object" || Array.isArray(given)) {
      throw new Error('parameters: must be an object, such as {"top_k": 3}');
    }
    const said = { text: () => text.value, json: () => parsed(json.value, "input"), bytes: () => "" };
    if (way.value === "bytes" && !file.files.length) throw new Error("choose a file first");
    return {
      ...{ way: way.value, inputs: said[way.value](), file: file.files[0] },
      ...{ parameters: given, accept: accept.value, token: asked.token },
    };
  };
  const nodes = [...Object.values(inputs), labelled("parameters, as JSON", parameters)];
  return { nodes, choices: [waySaid, acceptSaid], read };
}

function copies(read, url) {
  const node = make("details", "ns-copy", make("summary", "", "the same as curl, as Python"));
  const forms = Object.entries({ curl, Python: python }).map(([name, write]) => {
    const text = make("pre");
    text.tabIndex = 0;
    const copy = button(`Copy ${name}`, async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text); // a page that is not secure may not copy
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
        text.textContent = write(read(), url());
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

function formOf(asked) {
  // Relative: the page may stand behind a proxy's prefix.
  const url = () => new URL(asked.path || ".", location.href).href;
  const { nodes, choices, read } = fields(asked);
  const send = make("button", "", "Send");
  const cancel = button("Cancel", () => going?.abort());
  const [status, said] = [make("p", "ns-status"), make("div", "ns-said")];
  const form = make("form", "", ...nodes, make("div", "ns-row", ...choices, send, cancel));
  const copy = copies(read, url);
  let going = null;
  status.setAttribute("role", "status");
  cancel.hidden = true;

  const tell = (text, refused, ...more) => {
    status.textContent = text;
    status.classList.toggle("ns-refused", refused);
    said.replaceChildren(...more);
  };
  const ask = async () => {
    const question = read();
    const began = performance.now();
    const response = await fetch(url(), { ...(await optionsOf(question)), signal: going.signal });
    const nodes = await answerNodes(response);
    const took = duration((performance.now() - began) / 1e3);
    const heading = `${response.status} ${response.statusText} in ${took}`;
    tell(heading, !response.ok, factsOf(response), ...nodes);
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (going) return;
    going = new AbortController();
    send.disabled = true;
    cancel.hidden = false;
    tell("waiting for the answer…", false);
    try {
      await ask();
    } catch (error) {
      const words = { AbortError: "cancelled", TypeError: "the server cannot be reached" };
      tell(words[error.name] ?? error.message, true);
    }
    going = null;
    send.disabled = false;
    cancel.hidden = true;
  });
  form.addEventListener("input", copy.update);
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  return [form, status, said, copy.node];
}

// `show` is told what may be asked with each picture: null while the model is not loaded.
export function tryIt(root) {
  let shown = "";
  const show = (asked) => {
    const now = JSON.stringify(asked ?? null);
    // What was typed stays, also while the model is loaded again.
    if (now === shown || (!asked && shown)) return;
    shown = asked ? now : "";
    const heading = make("h2", "", "Try it ", make("small", "", asked?.task ?? ""));
    const body = asked ? formOf(asked) : [make("p", "", "The model is not loaded.")];
    root.replaceChildren(heading, ...body);
  };
  return { show };
}
