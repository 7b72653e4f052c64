"use strict";
// The page at /: a playground over OpenAI's API, and the fleet as /metrics tells it. No library, nothing from elsewhere.

const $ = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// ---- asking the server ----

function headers(more = {}) {
  const key = $("key").value;
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

async function errorOf(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered ${response.status}`;
  }
}

// The events of a stream of server-sent events, as objects, until [DONE].
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the stream was cut off");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue;
      const data = line.slice("data: ".length);
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

// ---- the playground ----

const conversation = [];  // messages of the chat
let running = null;       // the AbortController of the answer that streams
let model = "";

const isChat = () => $("kind-chat").checked;

function parameters() {
  const number = (id) => ($(id).value === "" ? undefined : Number($(id).value));
  const body = { model, stream: true, stream_options: { include_usage: true } };
  for (const id of ["temperature", "top_p", "max_tokens", "seed"]) if (number(id) !== undefined) body[id] = number(id);
  if ($("stop_text").value) body.stop = [$("stop_text").value];
  if ($("logprobs").checked) Object.assign(body, isChat() ? { logprobs: true, top_logprobs: 5 } : { logprobs: 5 });
  return body;
}

function requestOf(prompt) {
  if (!isChat()) return ["/v1/completions", { ...parameters(), prompt }];
  const system = $("system").value.trim();
  const messages = [...(system ? [{ role: "system", content: system }] : []), ...conversation];
  return ["/v1/chat/completions", { ...parameters(), messages }];
}

function addMessage(role, text) {
  $("welcome")?.remove();
  const message = make("div", { class: `message ${role}` }, text);
  message.prepend(make("span", { class: "hidden" }, role === "user" ? "You: " : "Answer: "));
  $("transcript").append(message);
  message.scrollIntoView({ block: "end" });
  return message;
}

// Both shapes of log probabilities as [{token, logprob, top: [[token, logprob]]}].
function tokensOf(choice) {
  const given = choice.logprobs;
  if (!given) return [];
  if (given.content) return given.content.map((t) => ({ token: t.token, logprob: t.logprob, top: t.top_logprobs.map((o) => [o.token, o.logprob]) }));
  return given.tokens.map((token, i) => ({ token, logprob: given.token_logprobs[i], top: Object.entries(given.top_logprobs?.[i] ?? {}) }));
}

const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;

function markOf(token) {
  const p = Math.exp(token.logprob);
  const others = token.top.map(([text, logprob]) => `${JSON.stringify(text)}  ${percent(logprob)}`).join("\n");
  return make("mark", { class: p < 0.3 ? "p1" : p < 0.7 ? "p2" : "p3", title: `${percent(token.logprob)}\n${others}` }, token.token);
}

function show(message, choice, text) {
  const atEnd = $("transcript").scrollHeight - $("transcript").scrollTop - $("transcript").clientHeight < 60;
  const tokens = tokensOf(choice);
  if (tokens.length) message.append(...tokens.map(markOf));
  else message.append(text);
  if (atEnd) $("transcript").scrollTop = $("transcript").scrollHeight;
}

class Clock {
  constructor() {
    this.asked = performance.now();
  }
  tick() {
    this.first ??= performance.now();
    this.last = performance.now();
  }
  summary(usage, reason) {
    const first = ((this.first ?? performance.now()) - this.asked) / 1000;
    const tokens = usage?.completion_tokens;
    const rate = tokens > 1 && this.last > this.first ? ` · ${((tokens - 1) / ((this.last - this.first) / 1000)).toFixed(1)} tokens/s` : "";
    const cached = usage?.prompt_tokens_details?.cached_tokens;
    const counts = usage ? ` · ${usage.prompt_tokens}${cached ? ` (${cached} cached)` : ""} + ${tokens} tokens` : "";
    return `${reason} · first token after ${first.toFixed(2)} s${rate}${counts}`;
  }
}

async function stream(path, body, message) {
  const clock = new Clock();
  let answer = "", usage = null, reason = "stopped";
  const rank = $("rank").value;
  const response = await fetch(path, {
    method: "POST", body: JSON.stringify(body), signal: running.signal,
    headers: headers({ "Content-Type": "application/json", ...(rank && { "X-data-parallel-rank": rank }) }),
  });
  if (!response.ok) throw new Error(await errorOf(response));
  for await (const event of events(response)) {
    usage = event.usage ?? usage;
    const choice = event.choices?.[0];
    if (!choice) continue;
    const text = choice.text ?? choice.delta?.content ?? choice.delta?.reasoning_content ?? choice.delta?.reasoning ?? "";
    if (text) clock.tick();
    answer += text;
    show(message, choice, text);
    reason = choice.finish_reason ?? reason;
  }
  $("status").textContent = clock.summary(usage, reason);
  return answer;
}

async function ask(prompt) {
  if (isChat()) conversation.push({ role: "user", content: prompt });
  addMessage("user", prompt);
  const message = addMessage("assistant", "");
  message.classList.add("running");
  running = new AbortController();
  $("send").disabled = true;
  $("stop").disabled = false;
  $("status").textContent = "…";
  try {
    const answer = await stream(...requestOf(prompt), message);
    if (isChat()) conversation.push({ role: "assistant", content: answer });
  } catch (error) {
    const stopped = error.name === "AbortError";
    message.classList.toggle("failed", !stopped);
    $("status").textContent = stopped ? "stopped by you" : `Failed: ${error.message}`;
    if (isChat()) conversation.push({ role: "assistant", content: message.textContent.replace("Answer: ", "") });
  } finally {
    running = null;
    message.classList.remove("running");
    $("send").disabled = false;
    $("stop").disabled = true;
  }
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const prompt = $("prompt").value;
  if (running || !prompt.trim()) return;
  $("prompt").value = "";
  ask(prompt);
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask").requestSubmit();
});
$("settings-form").addEventListener("submit", (event) => event.preventDefault());
$("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
$("clear").addEventListener("click", () => {
  running?.abort();
  conversation.length = 0;
  $("transcript").replaceChildren();
  $("status").textContent = "";
  $("prompt").focus();
});
for (const radio of document.getElementsByName("kind")) {
  radio.addEventListener("change", () => {
    $("system-label").hidden = !isChat();
    $("clear").click();
  });
}

// ---- the fleet ----

const kept_s = 180;   // of the lines
const history = new Map();  // replica -> [{at, tokens}]
let before = null;

// Prometheus' text: name -> [{labels, value}].
function samplesOf(text) {
  const samples = new Map();
  for (const line of text.split("\n")) {
    const match = /^([a-z:_]+)(?:\{(.*)\})? (\S+)$/i.exec(line);
    if (!match || match[1].endsWith("_bucket")) continue;
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)].map((l) => [l[1], l[2]]));
    if (!samples.has(match[1])) samples.set(match[1], []);
    samples.get(match[1]).push({ labels, value: Number(match[3]) });
  }
  return samples;
}

const sum = (samples, name, engine) =>
  (samples.get(name) ?? []).filter((s) => engine === undefined || s.labels.engine === engine).reduce((total, s) => total + s.value, 0);

function replicaOf(samples, engine) {
  const queries = sum(samples, "vllm:prefix_cache_queries_total", engine), hits = sum(samples, "vllm:prefix_cache_hits_total", engine);
  return {
    engine,
    ready: sum(samples, "chorus:replica_ready", engine) > 0,
    state: stateOf(samples, engine),
    running: sum(samples, "vllm:num_requests_running", engine),
    waiting: sum(samples, "vllm:num_requests_waiting", engine),
    kv: sum(samples, "vllm:kv_cache_usage_perc", engine),
    hits: queries > 0 ? hits / queries : null,
    tokens: sum(samples, "vllm:generation_tokens_total", engine),
    deaths: sum(samples, "chorus:replica_deaths_total", engine),
  };
}

// As `chorus ctl list` names it.
function stateOf(samples, engine) {
  const present = (samples.get("chorus:replica_state") ?? []).find((s) => s.labels.engine === engine && s.value > 0);
  return (present?.labels.state ?? "starting").replace("_", " ");
}

function fleetOf(samples) {
  const engines = [...new Set((samples.get("chorus:replica_ready") ?? []).map((s) => s.labels.engine))].sort((a, b) => a - b);
  return {
    at: performance.now() / 1000,
    replicas: engines.map((engine) => replicaOf(samples, engine)),
    moved: sum(samples, "chorus:requests_moved_total"),
    replayed: sum(samples, "chorus:tokens_replayed_total"),
    frontEndDeaths: sum(samples, "chorus:front_end_deaths_total"),
    connections: sum(samples, "chorus:http_connections"),
  };
}

function note(text, bad) {
  $("events").querySelector("li.quiet")?.remove();
  $("events").prepend(make("li", bad ? { class: "bad" } : {}, make("time", {}, new Date().toLocaleTimeString()), text));
  while ($("events").children.length > 100) $("events").lastChild.remove();
}

function noteChanges(now) {
  if (!before) return;
  const old = new Map(before.replicas.map((r) => [r.engine, r])), left = new Set(old.keys());
  for (const replica of now.replicas) {
    const was = old.get(replica.engine);
    if (!was) note(`Replica ${replica.engine} has joined.`);
    else if (replica.deaths > was.deaths) note(`Replica ${replica.engine} died.`, true);
    if (was && replica.state === "draining" && was.state !== "draining") note(`Replica ${replica.engine} is draining: it gets nothing new.`);
    if (was && replica.state === "drained" && was.state !== "drained") note(`Replica ${replica.engine} is drained.`);
    if (was && replica.ready && (!was.ready || replica.deaths > was.deaths)) note(`Replica ${replica.engine} is ready.`);
    left.delete(replica.engine);
  }
  for (const engine of left) note(`Replica ${engine} has left.`);
  const moved = now.moved - before.moved;
  if (moved > 0) {
    note(`${moved} ${moved === 1 ? "request goes" : "requests go"} on at another replica, at the token where ${moved === 1 ? "it" : "they"} had come to.`);
    const died = now.replicas.some((replica) => replica.deaths > (old.get(replica.engine)?.deaths ?? 0));
    const why = died ? "the replica died here" : "the replica was drained here";
    if (running) $("transcript").append(make("p", { class: "note" }, `↑ ${why}; another one goes on`));
  }
  if (now.frontEndDeaths > before.frontEndDeaths) note("A front end died and was started again.", true);
}

function rateOf(now, replica) {
  const points = history.get(replica.engine) ?? [];
  const previous = points.at(-1);
  const rate = previous && replica.tokens >= previous.total ? (replica.tokens - previous.total) / (now.at - previous.at) : 0;
  points.push({ at: now.at, total: replica.tokens, rate });
  while (points[0].at < now.at - kept_s) points.shift();
  history.set(replica.engine, points);
  return rate;
}

const svgNames = "http://www.w3.org/2000/svg";

function lineOf(points, now, most) {
  const svg = document.createElementNS(svgNames, "svg");
  svg.setAttribute("viewBox", "0 0 100 40");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `tokens per second over the last ${kept_s / 60} minutes, at most ${Math.round(most)}`);
  const base = document.createElementNS(svgNames, "line");
  for (const [name, value] of Object.entries({ x1: 0, x2: 100, y1: 39, y2: 39 })) base.setAttribute(name, value);
  const line = document.createElementNS(svgNames, "polyline");
  const place = (p) => `${(100 - (100 * (now.at - p.at)) / kept_s).toFixed(2)},${(39 - (36 * p.rate) / Math.max(most, 1)).toFixed(2)}`;
  line.setAttribute("points", points.map(place).join(" "));
  svg.append(base, line);
  return svg;
}

const entry = (name, value) => make("div", {}, make("dt", {}, name), make("dd", {}, value));

function cardOf(replica, now, rate, most) {
  const look = replica.ready ? "good" : replica.state.startsWith("drain") ? "" : "bad";
  const state = make("span", { class: `pill ${look}` }, replica.state);
  const numbers = make("dl", { class: "numbers" },
    entry("running", replica.running), entry("waiting", replica.waiting), entry("tokens/s", rate.toFixed(0)),
    entry("prefix hits", replica.hits === null ? "–" : `${(100 * replica.hits).toFixed(0)} %`));
  const share = `${(100 * replica.kv).toFixed(replica.kv < 0.1 ? 1 : 0)} %`;
  const meter = make("meter", { min: 0, max: 1, value: replica.kv, "aria-label": "KV cache in use", title: `KV cache: ${share} in use` });
  const kv = make("div", { class: "kv quiet" }, "KV cache", meter, share);
  const deaths = replica.deaths ? make("span", { class: "quiet" }, `${replica.deaths} ${replica.deaths === 1 ? "death" : "deaths"}`) : "";
  return make("article", { class: "replica", "data-replica": replica.engine },
    make("h3", {}, make("span", {}, `Replica ${replica.engine}`), deaths, state), numbers, kv, lineOf(history.get(replica.engine), now, most));
}

function offerRanks(replicas) {
  const select = $("rank");
  if (select.options.length === replicas.length + 1) return;
  const chosen = select.value;
  select.replaceChildren(make("option", { value: "" }, "any"), ...replicas.map((r) => make("option", { value: r.engine }, r.engine)));
  select.value = chosen;
}

function showFleet(now) {
  noteChanges(now);
  const rates = new Map(now.replicas.map((replica) => [replica.engine, rateOf(now, replica)]));
  const most = Math.max(1, ...[...history.values()].flat().map((p) => p.rate));
  const ready = now.replicas.filter((r) => r.ready).length;
  $("readiness").textContent = `${ready} of ${now.replicas.length} ready`;
  $("readiness").className = `pill ${ready === now.replicas.length ? "good" : "bad"}`;
  $("totals").replaceChildren(
    entry("tokens/s", [...rates.values()].reduce((a, b) => a + b, 0).toFixed(0)),
    entry("running", now.replicas.reduce((total, r) => total + r.running, 0)),
    entry("deaths", now.replicas.reduce((total, r) => total + r.deaths, 0)),
    entry("moved", now.moved), entry("clients", now.connections));
  $("replicas").replaceChildren(...now.replicas.map((r) => cardOf(r, now, rates.get(r.engine), most)));
  offerRanks(now.replicas);
  before = now;
}

async function refresh() {
  if (document.hidden) return;
  try {
    const response = await fetch("/metrics", { headers: headers() });
    if (!response.ok) throw new Error(response.status === 401 ? "give the API key under Parameters" : await errorOf(response));
    showFleet(fleetOf(samplesOf(await response.text())));
    $("fleet-note").textContent = "";
    if (!model) await findModel();
  } catch (error) {
    $("readiness").textContent = "no answer";
    $("readiness").className = "pill bad";
    $("fleet-note").textContent = error instanceof TypeError ? "the server does not answer" : error.message;
  }
}

async function findModel() {
  const response = await fetch("/v1/models", { headers: headers() });
  if (!response.ok) return;
  const first = (await response.json()).data[0];
  model = first.id;
  $("model").textContent = `${model}${first.max_model_len ? ` · ${first.max_model_len.toLocaleString()} tokens of context` : ""}`;
  document.title = `${model} · Chorus`;
}

// ---- the rest ----

$("address").textContent = `${location.origin}/v1`;
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = dark === "dark" ? "light" : "dark";
});
refresh();
setInterval(refresh, 1000);
