// Calls services by hand: what there is comes from discovery.Discovery, and calls go by pRPC in JSON (docs/api.md).

const $ = (id) => document.getElementById(id);

/** What discovery tells, by full name: each message and enum, and the services in order. */
const messages = new Map();
const enums = new Map();
let services = [];

/** codes are the names of gRPC codes. */
const codes = [
  "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
  "UNAUTHENTICATED",
];

/** call makes a call and returns its code, its HTTP status and its answer: an object, or the text of a failure. */
async function call(method, request) {
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  const token = $("token").value.trim();
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(`/prpc/${method}`, { method: "POST", headers, body: request });
  const text = await response.text();
  const code = response.headers.get("X-Prpc-Grpc-Code");
  if (code !== "0") return { code, status: response.status, answer: text.trim() };
  return { code, status: response.status, answer: JSON.parse(text.replace(/^\)\]\}'\n/, "")) };
}

/** learn takes in a FileDescriptorSet. */
function learn(description, names) {
  const wanted = new Set(names);
  const found = new Map();
  const enter = (scope, file) => {
    for (const e of file.enumType ?? []) enums.set(`${scope}.${e.name}`, e);
    for (const m of file.messageType ?? file.nestedType ?? []) {
      messages.set(`${scope}.${m.name}`, m);
      enter(`${scope}.${m.name}`, { enumType: m.enumType, nestedType: m.nestedType });
    }
  };
  for (const file of description.file ?? []) {
    const scope = file.package ? `.${file.package}` : "";
    enter(scope, file);
    for (const s of file.service ?? []) {
      const name = `${scope}.${s.name}`.slice(1);
      if (wanted.has(name)) found.set(name, s.method ?? []);
    }
  }
  services = names.filter((n) => found.has(n)).map((name) => ({ name, methods: found.get(name) }));
}

/** Messages that have a JSON form of their own, with an example of it. */
const wellKnown = {
  ".google.protobuf.Timestamp": "2026-03-14T09:26:53Z",
  ".google.protobuf.Duration": "3600s",
  ".google.protobuf.Empty": {},
};

const isEntry = (field) => messages.get(field.typeName)?.options?.mapEntry;

/** example returns a value of a field's type, to be changed. Messages within themselves are left out. */
function example(field, path) {
  switch (field.type) {
    case "TYPE_MESSAGE": {
      if (field.typeName in wellKnown) return wellKnown[field.typeName];
      return path.includes(field.typeName) ? {} : skeleton(field.typeName, path);
    }
    case "TYPE_ENUM": return enums.get(field.typeName)?.value[0].name ?? 0;
    case "TYPE_BOOL": return false;
    case "TYPE_STRING": return field.name === "project" ? "local" : "";
    case "TYPE_BYTES": return "";
    case "TYPE_DOUBLE": case "TYPE_FLOAT": case "TYPE_INT32": case "TYPE_UINT32": case "TYPE_SINT32": case "TYPE_FIXED32": case "TYPE_SFIXED32": return 0;
    default: return "0"; // numbers of 64 bits are strings
  }
}

/** skeleton returns a message with all of its fields; of those that exclude each other only the first. */
function skeleton(type, path = []) {
  const object = {};
  const oneofs = new Set();
  for (const field of messages.get(type)?.field ?? []) {
    if (field.oneofIndex !== undefined && !field.proto3Optional) {
      if (oneofs.has(field.oneofIndex)) continue;
      oneofs.add(field.oneofIndex);
    }
    const name = field.jsonName ?? field.name;
    if (isEntry(field)) object[name] = {};
    else if (field.label === "LABEL_REPEATED") object[name] = [];
    else if (field.proto3Optional) continue; // absent says something else than zero
    else if (field.typeName in wellKnown || field.type === "TYPE_MESSAGE" && path.length > 0) continue;
    else object[name] = example(field, [...path, type]);
  }
  return object;
}

/** describe returns a message's fields as text, and those of the messages in it. */
function describe(type, seen = new Set()) {
  if (seen.has(type) || type in wellKnown) return "";
  seen.add(type);
  const lines = [`message ${type.slice(1)} {`];
  const inner = [];
  const typeOf = (f) => f.typeName?.slice(1) ?? f.type.slice(5).toLowerCase();
  for (const f of messages.get(type)?.field ?? []) {
    if (isEntry(f)) {
      const [key, value] = messages.get(f.typeName).field;
      lines.push(`  map<${typeOf(key)}, ${typeOf(value)}> ${f.jsonName}`);
      if (value.type === "TYPE_MESSAGE") inner.push(value.typeName);
      continue;
    }
    const label = f.label === "LABEL_REPEATED" ? "repeated " : f.proto3Optional ? "optional " : "";
    const values = f.type === "TYPE_ENUM" ? ` (${enums.get(f.typeName)?.value.map((v) => v.name).join(", ")})` : "";
    lines.push(`  ${label}${typeOf(f)} ${f.jsonName ?? f.name}${values}`);
    if (f.type === "TYPE_MESSAGE") inner.push(f.typeName);
  }
  lines.push("}");
  return [lines.join("\n"), ...inner.map((t) => describe(t, seen)).filter(Boolean)].join("\n\n");
}

/** list shows the services and their methods. */
function list() {
  $("methods").replaceChildren(...services.flatMap(({ name, methods }) => {
    const title = document.createElement("strong");
    title.textContent = name;
    const items = document.createElement("ul");
    for (const m of methods) {
      const item = document.createElement("li");
      const streams = m.clientStreaming || m.serverStreaming;
      const label = document.createElement(streams ? "span" : "a");
      label.textContent = m.name;
      if (streams) {
        label.className = "stream";
        label.title = "answers with a stream of messages: use gRPC or, to follow a log, /api/v1/follow";
      } else {
        label.href = `#${name}/${m.name}`;
      }
      item.append(label);
      items.append(item);
    }
    return [title, items];
  }));
}

let current = ""; // service/method

/** show shows the method that the address names. */
function show() {
  const wanted = decodeURIComponent(location.hash.slice(1));
  const [service, name] = wanted.split("/");
  const method = services.find((s) => s.name === service)?.methods.find((m) => m.name === name);
  $("call").hidden = !method;
  for (const a of $("methods").querySelectorAll("a")) {
    if (a.hash === location.hash) a.setAttribute("aria-current", "true");
    else a.removeAttribute("aria-current");
  }
  if (!method) return;
  current = wanted;
  document.title = `${name} · Daybook`;
  $("name").textContent = wanted;
  $("about").textContent = `${method.inputType.slice(1)} → ${method.outputType.slice(1)}`;
  $("request").value = JSON.stringify(skeleton(method.inputType), null, 2);
  $("answer").textContent = "";
  $("outcome").textContent = "";
  $("messages").textContent = [method.inputType, method.outputType].map((t) => describe(t)).join("\n\n");
  curl();
}

/** curl shows the call as a command line. */
function curl() {
  let body = $("request").value;
  try { body = JSON.stringify(JSON.parse(body)); } catch { /* shown as it is */ }
  const quote = (s) => `'${s.replaceAll("'", `'\\''`)}'`;
  const token = $("token").value.trim() ? ` \\\n     -H "Authorization: Bearer $TOKEN"` : "";
  $("curl").textContent = `curl ${quote(`${location.origin}/prpc/${current}`)} -H 'Content-Type: application/json' -H 'Accept: application/json'${token} \\\n     -d ${quote(body)}`;
}

async function send() {
  const outcome = $("outcome");
  outcome.className = "";
  outcome.textContent = "…";
  $("answer").textContent = "";
  const sent = current;
  const began = performance.now();
  try {
    const { code, status, answer } = await call(sent, $("request").value);
    if (sent !== current) return;
    const name = code === null ? "no answer of the server" : codes[Number(code)] ?? code;
    outcome.className = code === "0" ? "good" : "bad";
    outcome.textContent = `${name}, HTTP ${status}, ${Math.round(performance.now() - began)} ms`;
    $("answer").textContent = typeof answer === "string" ? answer : JSON.stringify(answer, null, 2);
  } catch (e) {
    outcome.className = "bad";
    outcome.textContent = String(e);
  }
}

$("form").addEventListener("submit", (e) => { e.preventDefault(); void send(); });
$("request").addEventListener("input", curl);
$("token").addEventListener("input", curl);
$("request").addEventListener("keydown", (e) => {
  if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) { e.preventDefault(); void send(); }
});
addEventListener("hashchange", show);

async function start() {
  const { code, answer } = await call("discovery.Discovery/Describe", "{}");
  if (code !== "0") throw new Error(answer || "the server did not answer");
  learn(answer.description, answer.services);
  list();
  show();
}
start().catch((e) => { $("methods").textContent = `The services could not be listed: ${e.message}`; });
