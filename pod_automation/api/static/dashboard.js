// The dashboard: a page for each question, drawn from the API that everybody else can use.
// No framework and no build step; whatever comes from outside goes into the page as text.

const main = document.querySelector("#main");
const REFRESH_MS = 2000;

// Elements

function h(name, attributes = {}, ...children) {
  const made = name.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

const number = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en"));
const words = (text) => text.replaceAll("_", " ");

function time(text) {
  if (!text) return "–";
  const at = new Date(text);
  const shown = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
  return h("time", { datetime: text, title: text }, shown);
}

function ago(text) {
  const seconds = Math.round((new Date(text) - Date.now()) / 1000);
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const [unit, length] = units.find(([, size]) => Math.abs(seconds) >= size) ?? units[3];
  return new Intl.RelativeTimeFormat("en", { numeric: "auto" }).format(Math.round(seconds / length), unit);
}

const TONES = { executed: "good", failed: "bad", expired: "bad", cancelled: "quiet", retrying: "warn" };
const pill = (status) => h("span", { class: `pill ${TONES[status] ?? ""}` }, status);
const link = (page, id, text = id) => h("a", { href: `#/${page}/${encodeURIComponent(id)}` }, text);

function table(caption, columns, rows, empty) {
  if (!rows.length) return h("p", { class: "quiet" }, empty);
  const head = columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title));
  const body = rows.map((cells) => h("tr", {}, cells.map((cell, at) => h("td", { class: columns[at][1] }, cell))));
  return h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)));
}

const facts = (pairs) => h("dl", {}, pairs.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
const card = (title, ...content) => h("section", { class: "card" }, h("h2", {}, title), content);
const section = (title, ...content) => h("section", {}, h("h2", {}, title), content);

// The API

class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `HTTP ${status}`);
    this.status = status;
  }
}

async function api(path, body) {
  const options = { headers: { Authorization: `Bearer ${sessionStorage.getItem("token") ?? ""}` } };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(`v1/${path}`, options);
  const found = await answer.json();
  if (!answer.ok) throw new Refused(answer.status, found);
  return found;
}

const literally = (text) => text.replace(/[\\^$.*+?()[\]{}|\/]/g, "\\$&");
const query = (fields) => new URLSearchParams(Object.entries(fields).filter(([, value]) => value)).toString();

function tell(text, bad = false) {
  const line = h("p", { class: bad ? "bad" : "" }, text);
  document.querySelector("#told").append(line);
  setTimeout(() => line.remove(), bad ? 12000 : 7000);
}

// Asking before anything is done

const asking = document.querySelector("#asking");
// No button of the form: Enter in a field presses the first of those.
document.querySelector("#asking-no").addEventListener("click", () => asking.close("no"));

function ask(what, more, { risky = false, fields = [] } = {}) {
  document.querySelector("#asking-what").textContent = what;
  document.querySelector("#asking-more").textContent = more;
  const yes = document.querySelector("#asking-yes");
  yes.className = risky ? "risky" : "act";
  const inputs = [...fields, { name: "reason", label: "Why? (kept on record)", maxlength: 200 }].map((field) =>
    h("label", { class: "field" }, field.label,
      h("input", { name: field.name, type: field.type ?? "text", required: field.required, maxlength: field.maxlength,
        pattern: field.pattern, title: field.title, min: field.min, step: field.step, value: field.value, autocomplete: "off" })));
  document.querySelector("#asking-fields").replaceChildren(...inputs);
  asking.returnValue = "no";
  asking.showModal();
  return new Promise((resolve) => {
    asking.addEventListener("close", () => {
      if (asking.returnValue !== "yes") return resolve(null);
      const entered = {};
      for (const input of asking.querySelectorAll("input")) entered[input.name] = input.type === "checkbox" ? input.checked : input.value.trim() || null;
      resolve(entered);
    }, { once: true });
  });
}

async function act(path, body, said) {
  try {
    const answer = await api(path, body);
    tell(said(answer));
  } catch (error) {
    tell(error.message, true);
  }
  await draw();
}

function came(answer, verb = "cancelled") {
  const parts = [`${verb} ${number(answer[verb])}`];
  if (answer.too_late) parts.push(`${number(answer.too_late)} too late, since they had been sent`);
  if (answer.final) parts.push(`${number(answer.final)} had come to their end before`);
  return parts.join("; ");
}

function control(text, what, more, path, body, said, { risky = false, fields = [], made = (entered) => ({}) } = {}) {
  return h("button", {
    type: "button", class: risky ? "risky" : "", onclick: async () => {
      const entered = await ask(what, more, { risky, fields });
      if (entered) await act(path, { ...body, ...made(entered), reason: entered.reason }, said);
    },
  }, text);
}

function stopping(subject, body, isPaused, more = "") {
  return isPaused
    ? control(`Resume${more}`, `Resume ${subject}?`, "What has fallen due meanwhile follows the catch-up policy.", "resume", body, () => `${subject} goes on`)
    : control(`Pause${more}`, `Pause ${subject}?`, "Nothing of it is sent until it is resumed. What comes is planned.", "pause", body, () => `${subject} is paused`);
}

const quietHours = (subject, body) =>
  control("Quiet hours", `Set the quiet hours of ${subject}?`, "Every day, by the clocks there. What waits is moved out of them, and what comes is planned around them.",
    "quiet-hours", body, () => `${subject} has quiet hours`, {
      fields: [{ name: "from", label: "From", type: "time", required: true, value: "22:00" }, { name: "until", label: "Until", type: "time", required: true, value: "07:00" },
        { name: "zone", label: "Time zone", required: true, maxlength: 64, value: Intl.DateTimeFormat().resolvedOptions().timeZone }],
      made: ({ from, until, zone }) => ({ from, until, zone }),
    });

const minutes = (value) => (value === null ? null : Math.round(Number(value) * 60000));

const pace = (id) =>
  control("Pace", `Plan pod ${id} at a pace of its own?`, "For posts that come from now on. Of a window give both ends; what is left empty is as the settings say, and so is all of it again if nothing is given.",
    "policy", { pod_id: id }, () => `pod ${id} is planned at its own pace`, {
      fields: [{ name: "like_min", label: "Likes: no sooner than (minutes)", type: "number", min: 0, step: "any" }, { name: "like_max", label: "Likes: no later than (minutes)", type: "number", min: 0, step: "any" },
        { name: "comment_min", label: "Comments: no sooner than (minutes)", type: "number", min: 0, step: "any" }, { name: "comment_max", label: "Comments: no later than (minutes)", type: "number", min: 0, step: "any" },
        { name: "cap", label: "Likes of a post in an hour, at most", type: "number", min: 1, step: 1 }],
      made: (entered) => ({
        like_min_delay_ms: minutes(entered.like_min), like_max_delay_ms: minutes(entered.like_max),
        comment_min_delay_ms: minutes(entered.comment_min), comment_max_delay_ms: minutes(entered.comment_max),
        like_cap: entered.cap === null ? null : Number(entered.cap), like_cap_window_ms: entered.cap === null ? null : 3600000,
      }),
    });

const forgotten = ({ unfinished, activities, name }) =>
  unfinished ? `Nothing is erased yet: ${number(unfinished)} are being carried out. Ask again when they have come to their end.`
    : `The member is forgotten: ${number(activities)} ${activities === 1 ? "activity goes" : "activities go"} by the name ${name} now.`;

const forget = (id) =>
  control("Forget", `Erase member ${id} from the record, for good?`, "The member is opted out, which cancels what waits; then a name of chance takes the place of the id. The counts stay, and so does the reason, which must not name the member.",
    "forget-member", { member_id: id }, forgotten, { risky: true,
      fields: [{ name: "again", label: "The id of the member, once more", required: true, pattern: literally(id), title: `Type ${id}` },
        { name: "too", label: "Erase the opt-out as well: the next post that names the member counts", type: "checkbox" }],
      made: ({ too }) => ({ opt_out_too: too }) });

// Pictures

function bars(series, label) {
  const most = Math.max(1, ...series), width = 6;
  const made = h("svg:svg", { viewBox: `0 0 ${series.length * width} 60`, role: "img", "aria-label": label, preserveAspectRatio: "none" });
  series.forEach((value, at) => {
    const height = (value / most) * 58;
    made.append(h("svg:rect", { class: "bar", x: at * width, y: 60 - height, width: width - 1, height }));
  });
  return made;
}

function timeline(activities) {
  const timed = activities.filter((each) => each.scheduled_for);
  if (!timed.length) return null;
  const at = (each) => new Date(each.executed_at ?? each.scheduled_for).getTime();
  const times = [...timed.map(at), Date.now()];
  const from = Math.min(...times), until = Math.max(...times), span = Math.max(1, until - from);
  const members = [...new Set(timed.map((each) => each.member_id))].slice(0, 40);
  const width = 900, left = 150, row = 18, top = 22, height = top + members.length * row + 8;
  const x = (ms) => left + ((ms - from) / span) * (width - left - 14);
  const made = h("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "When members engage, planned and done" });
  for (let tick = 0; tick <= 4; tick++) {
    const ms = from + (span * tick) / 4;
    const text = new Date(ms).toLocaleString(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
    made.append(h("svg:line", { class: "axis", x1: x(ms), x2: x(ms), y1: top - 4, y2: height }));
    made.append(h("svg:text", { x: x(ms), y: 12, "text-anchor": tick === 0 ? "start" : tick === 4 ? "end" : "middle" }, text));
  }
  members.forEach((member, place) => made.append(h("svg:text", { x: 0, y: top + place * row + 12 }, member.length > 22 ? `…${member.slice(-21)}` : member)));
  made.append(h("svg:line", { class: "now", x1: x(Date.now()), x2: x(Date.now()), y1: top - 4, y2: height }));
  for (const each of timed) {
    const place = members.indexOf(each.member_id);
    if (place < 0) continue;
    const y = top + place * row + 8, title = `${each.member_id}: ${each.engagement_type}, ${each.status}`;
    const dot = each.engagement_type === "like"
      ? h("svg:circle", { class: `dot ${each.status}`, cx: x(at(each)), cy: y, r: 4.5 })
      : h("svg:rect", { class: `dot ${each.status}`, x: x(at(each)) - 4, y: y - 4, width: 8, height: 8 });
    dot.append(h("svg:title", {}, title));
    made.append(dot);
  }
  const sign = (status, shape = "circle") => h("svg:svg", { viewBox: "0 0 12 12", "aria-hidden": "true" },
    shape === "circle" ? h("svg:circle", { class: `dot ${status}`, cx: 6, cy: 6, r: 4.5 }) : h("svg:rect", { class: "dot", x: 2, y: 2, width: 8, height: 8 }));
  const legend = h("ul", { class: "legend" },
    h("li", {}, sign(""), "like"), h("li", {}, sign("", "rect"), "comment"),
    ["scheduled", "dispatched", "executed", "failed", "cancelled"].map((status) => h("li", {}, sign(status === "scheduled" ? "" : status), status)));
  return h("div", { class: "card" }, legend, made);
}

// Pages

async function overview() {
  const seen = await api("overview");
  const paused = seen.paused ?? [];
  const live = seen.live, late = live.lateness_ms;
  const ms = (value) => (value === null ? "–" : value < 10000 ? `${number(value)} ms` : `${number(Math.round(value / 1000))} s`);
  const stores = Object.entries(seen.stores).map(([name, each]) =>
    [name, h("span", { class: each.ok ? "good" : "bad" }, each.ok ? "answers" : each.error ?? "is away")]);
  const all = h("div", { class: "cards" },
    card("Sent", h("p", { class: "big" }, `${number(live.per_second)} a second`), bars(live.series, "Engagements sent in each of the last 60 seconds"),
      h("p", { class: "quiet" }, `${number(live.fired)} in the last ${live.window_s} s`)),
    card("Lateness", h("p", { class: "big" }, ms(late.p50)), facts([["p50", ms(late.p50)], ["p99", ms(late.p99)], ["p99.9", ms(late.p999)]]),
      h("p", { class: "quiet" }, "from due to sent, in the last minute")),
    card("Stores and processes", facts([...stores,
      ["workers", h("span", { class: seen.workers ? "" : "bad" }, number(seen.workers))],
      ["dispatchers", h("span", { class: seen.dispatchers ? "" : "bad" }, number(seen.dispatchers))]])),
    card("Queue", seen.queue ? facts(Object.entries(seen.queue).map(([name, value]) => [name, number(value)])) : h("p", { class: "warn" }, "not known: wheels are being rebuilt, or a store is away")),
    card("Activities", seen.activities ? facts(Object.entries(seen.activities).map(([name, value]) => [words(name), number(value)])) : h("p", { class: "warn" }, "not known: PostgreSQL is away")));
  const soon = seen.due_soon;
  const most = Math.max(1, ...(soon?.pods ?? []).map((each) => each.timers));
  const bar = (count) => {
    const share = h("span", { class: "share" });
    share.style.width = `${(count / most) * 100}%`;
    return h("span", {}, number(count), share);
  };
  const behind = (lags) => (lags ? Object.values(lags).map(number).join(" / ") : "–");
  return [
    h("h1", {}, "Overview"),
    paused.length ? h("p", { class: "notice" }, `Paused: ${paused.map((each) => (each.scope === "all" ? "everything" : `${each.scope} ${each.subject}`)).join(", ")}. `, h("a", { href: "#/controls" }, "Controls")) : null,
    seen.dispatchers === 0 ? h("p", { class: "notice bad" }, "No dispatcher runs: nothing is sent.") : null,
    seen.workers === 0 ? h("p", { class: "notice bad" }, "No worker runs: nothing is planned, and no result is applied.") : null,
    all,
    section("Due in the next ten minutes", soon
      ? table(soon.complete ? "by pod" : "by pod, of the first that are due", [["pod", "id"], ["timers", ""]], soon.pods.map((each) => [link("pod", each.pod_id), bar(each.timers)]), "Nothing is due that soon.")
      : h("p", { class: "warn" }, "Redis is away.")),
    section("Shards", table("lag: records not applied yet of post-detected / engagement-executed / pod-commands",
      [["shard", "number"], ["dispatcher", "who"], ["worker", "who"], ["pending", "number"], ["due", "number"], ["parked", "number"], ["held", "number"], ["awaited", "number"], ["lag", "number"], ["next due", "time"], ["wheel", ""]],
      seen.shards.map((each) => [each.shard, each.dispatcher ?? h("span", { class: "bad" }, "nobody"), each.worker ?? h("span", { class: "bad" }, "nobody"),
        number(each.pending), number(each.due), number(each.parked), number(each.held), number(each.awaited), behind(each.lags),
        each.next_due ? time(each.next_due) : "–", each.generation ? h("span", { class: "good" }, "whole") : h("span", { class: "warn" }, "is to be rebuilt")]), "")),
  ];
}

async function pods(after) {
  const page = await api(`pods?${query({ limit: 100, after })}`);
  return [
    h("h1", {}, "Pods"),
    table("by id", [["pod", "id"]], page.pods.map((each) => [link("pod", each)]), "No pod has any activity."),
    page.next ? h("p", { class: "buttons" }, link("pods", page.next, "More")) : null,
  ];
}

function activities(page, caption) {
  const listed = table(caption, [["due", "time"], ["what", ""], ["member", "id"], ["post", "id"], ["status", ""], ["sent", "time"], ["done", "time"], ["", ""]],
    page.activities.map((each) => [time(each.scheduled_for), each.engagement_type, link("member", each.member_id), link("post", each.post_id), pill(each.status), time(each.dispatched_at), time(each.executed_at), link("activity", each.activity_id, "history")]),
    "Nothing is planned.");
  return h("div", {}, listed, page.next ? h("p", { class: "quiet" }, `The last ${number(page.activities.length)} are shown; the API has all of them.`) : null);
}

async function pod(id) {
  const [stats, page, held] = await Promise.all([api(`stats?${query({ pod_id: id })}`), api(`activities?${query({ pod_id: id, limit: 300 })}`), api(`controls?${query({ kind: "paused", scope: "pod", subject: id })}`)]);
  const paused = held.controls.length > 0;
  return [
    h("h1", {}, `Pod ${id} `, paused ? h("span", { class: "pill warn" }, "paused") : null),
    h("p", { class: "buttons" }, stopping(`pod ${id}`, { pod_id: id }, paused),
      quietHours(`pod ${id}`, { pod_id: id }), pace(id),
      control("Cancel all that waits", `Cancel all that waits of pod ${id}?`, "It is not sent, and not planned again. This cannot be taken back.", "cancel", { pod_id: id }, came, { risky: true })),
    card("Activities", facts(Object.entries(stats).map(([name, value]) => [words(name), number(value)]))),
    section("Planned and done", timeline(page.activities)),
    activities(page, "those that are due last first"),
  ];
}

async function post(id) {
  const page = await api(`activities?${query({ post_id: id, limit: 300 })}`);
  return [
    h("h1", {}, `Post ${id}`),
    h("p", { class: "buttons" },
      control("Move the rest", `Move all that waits of post ${id}?`, "As far apart as it is; the cap on likes is kept.", "reschedule", { post_id: id }, (answer) => came(answer, "rescheduled"),
        { fields: [{ name: "minutes", label: "Minutes later", type: "number", required: true, value: "60" }], made: (entered) => ({ by_ms: Math.round(Number(entered.minutes) * 60000) }) }),
      control("Cancel all that waits", `Cancel all that waits of post ${id}?`, "It is not sent, and not planned again. This cannot be taken back.", "cancel", { post_id: id }, came, { risky: true })),
    section("Planned and done", timeline(page.activities)),
    activities(page, "those that are due last first"),
  ];
}

async function member(id) {
  const [page, held] = await Promise.all([api(`activities?${query({ member_id: id, limit: 200 })}`), api(`controls?${query({ scope: "member", subject: id })}`)]);
  const mine = held.controls;
  const paused = mine.some((each) => each.kind === "paused"), out = mine.some((each) => each.kind === "opted_out");
  return [
    h("h1", {}, `Member ${id} `, paused ? h("span", { class: "pill warn" }, "paused") : null, out ? h("span", { class: "pill bad" }, "opted out") : null),
    h("p", { class: "buttons" }, stopping(`member ${id}`, { member_id: id }, paused),
      quietHours(`member ${id}`, { member_id: id }),
      control("Daily cap", `Give member ${id} a daily cap?`, "So many engagements are planned for any 24 hours, at most, for posts that come from now on.", "daily-cap", { member_id: id },
        () => `member ${id} has a daily cap`, { fields: [{ name: "cap", label: "Engagements in 24 hours", type: "number", min: 1, step: 1, required: true, value: "10" }], made: ({ cap }) => ({ cap: Number(cap) }) }),
      out
        ? control("Opt in", `Have member ${id} take part again?`, "For posts that come from now on.", "opt-in", { member_id: id }, () => `member ${id} takes part again`)
        : control("Opt out", `Have member ${id} do nothing any more?`, "What waits is cancelled, and what comes is skipped.", "opt-out", { member_id: id }, (answer) => `member ${id} has opted out; ${came(answer)}`, { risky: true }),
      forget(id)),
    activities(page, "those that are due last first"),
  ];
}

async function activity(id) {
  const found = await api(`activities/${encodeURIComponent(id)}`);
  const waits = ["scheduled", "retrying"].includes(found.status);
  const overdue = waits && new Date(found.scheduled_for) < new Date();
  const about = overdue ? [{ scope: "all" }, { scope: "pod", subject: found.pod_id }, { scope: "member", subject: found.member_id }] : [];
  const held = (await Promise.all(about.map((each) => api(`controls?${query({ kind: "paused", ...each })}`)))).flatMap((each) => each.controls);
  const why = held.map((each) => `${each.scope === "all" ? "everything" : `its ${each.scope}`} was paused ${ago(each.issued_at)} by ${each.actor ?? "somebody"}${each.reason ? `: ${each.reason}` : ""}`);
  const body = { activity_ids: [id] };
  return [
    h("h1", {}, `${found.engagement_type[0].toUpperCase()}${found.engagement_type.slice(1)} of ${found.member_id} `, pill(found.status)),
    overdue ? h("p", { class: "notice" }, `Late: it was due ${ago(found.scheduled_for)}. `, why.length ? `It waits, since ${why.join("; and ")}.` : "No pause holds it: is a dispatcher running? See the overview.") : null,
    waits ? h("p", { class: "buttons" },
      control("Move", "Move it to another time?", "A like may come later than that, since the cap on likes is kept.", "reschedule", { activity_id: id }, (answer) => came(answer, "rescheduled"),
        { fields: [{ name: "at", label: "When", type: "datetime-local", step: 1, required: true }], made: (entered) => ({ at: new Date(entered.at).toISOString() }) }),
      control("Send now", "Have it sent at once?", "A like may come later than that, since the cap on likes is kept.", "reschedule", { activity_id: id }, (answer) => came(answer, "rescheduled"), { made: () => ({ at: new Date().toISOString() }) }),
      control("Cancel", "Cancel it?", "It is not sent, and not planned again. This cannot be taken back.", "cancel", body, came, { risky: true })) : null,
    card("What it is", facts([["activity", found.activity_id], ["pod", link("pod", found.pod_id)], ["post", link("post", found.post_id)], ["member", link("member", found.member_id)], ["attempt", number(found.attempt)], ["due", time(found.scheduled_for)]])),
    section("What happened", h("ol", { class: "steps" }, found.steps.map((step) => h("li", {},
      h("p", {}, h("strong", {}, step.what), step.attempt > 1 ? ` (attempt ${step.attempt})` : ""),
      h("p", { class: "quiet" }, time(step.at), ` · ${ago(step.at)}`),
      step.scheduled_for ? h("p", {}, "due ", time(step.scheduled_for)) : null,
      step.by || step.reason ? h("p", {}, step.by ? `by ${step.by}` : "", step.reason ? `${step.by ? ": " : ""}${step.reason}` : "") : null,
      step.source ? h("p", { class: "quiet" }, step.source) : null)))),
  ];
}

function rule({ kind, value }) {
  if (!value) return words(kind);
  if (value.zone) return `quiet from ${value.from} to ${value.until}, ${value.zone}`;
  if (kind === "daily_cap") return `at most ${number(value.cap)} in 24 hours`;
  const length = (ms) => (ms % 3600000 ? `${number(ms / 60000)} min` : `${number(ms / 3600000)} h`);
  const parts = Object.entries(value).map(([field, n]) => (field.endsWith("_ms") ? `${words(field.slice(0, -3))} ${length(n)}` : `${words(field)} ${number(n)}`));
  return `${words(kind)}: ${parts.join(", ")}`;
}

async function controls() {
  const { controls: found } = await api("controls");
  const everything = found.some((each) => each.kind === "paused" && each.scope === "all");
  const goto = (page) => (event) => {
    event.preventDefault();
    const id = new FormData(event.target).get("id").trim();
    if (id) location.hash = `#/${page}/${encodeURIComponent(id)}`;
  };
  const form = (page) => h("form", { class: "buttons", onsubmit: goto(page) },
    h("label", { class: "unseen", for: `go-${page}` }, `Id of a ${page}`), h("input", { id: `go-${page}`, name: "id", required: true, placeholder: `Id of a ${page}`, autocomplete: "off" }), h("button", {}, `To the ${page}`));
  return [
    h("h1", {}, "Controls"),
    h("p", { class: "buttons" }, stopping("everything", { everybody: true }, everything, " everything")),
    table("what holds", [["what", ""], ["who", "id"], ["since", "time"], ["by", ""], ["why", ""], ["", ""]],
      found.map((each) => {
        const body = each.scope === "all" ? { everybody: true } : { [`${each.scope}_id`]: each.subject };
        const name = each.scope === "all" ? "everything" : `${each.scope} ${each.subject}`;
        return [rule(each), each.scope === "all" ? name : about(each), time(each.issued_at), each.actor ?? "", each.reason ?? "",
          each.kind === "drained" ? control("Take part again", `Let ${name} have shards again?`, "It takes its share from the others.", "undrain", { instance_id: each.subject }, () => `${name} may have shards again`)
          : each.kind === "paused" ? stopping(name, body, true)
          : each.kind === "quiet_hours" ? control("Remove", `Remove the quiet hours of ${name}?`, "For what is planned from now on.", "quiet-hours", body, () => `${name} has no quiet hours`)
          : each.kind === "daily_cap" ? control("Remove", `Have no daily cap of ${name} any more?`, "For posts that come from now on.", "daily-cap", body, () => `${name} has no daily cap`)
          : each.kind === "policy" ? control("Remove", `Plan ${name} by the settings again?`, "For posts that come from now on.", "policy", body, () => `${name} is planned by the settings`)
          : control("Opt in", `Have ${name} take part again?`, "For posts that come from now on.", "opt-in", body, () => `${name} takes part again`)];
      }), "Nobody is paused, nobody has opted out, and no pod has rules of its own."),
    section("Stop a pod, or a member", form("pod"), form("member")),
    section("Maintenance of a host", h("p", { class: "buttons" }, control("Drain a dispatcher", "Have a dispatcher give up its shards?", "The others take them, and it gets none until it may take part again, also after a restart. Others must run, or nothing is sent.",
      "drain", {}, () => "The dispatcher gives up its shards; the overview shows when it has none.", { risky: true,
        fields: [{ name: "instance", label: "Its POD_AUTOMATION_INSTANCE_ID", required: true, maxlength: 200 }], made: ({ instance }) => ({ instance_id: instance }) }))),
  ];
}

async function letters() {
  const found = await api("dead-letters?limit=200");
  const boxes = new Map();
  const again = h("button", {
    type: "button", class: "act", onclick: async () => {
      const ids = [...boxes].filter(([, box]) => box.checked).map(([id]) => id);
      if (!ids.length) return tell("Choose some letters first.", true);
      const entered = await ask(`Replay ${ids.length} dead letter${ids.length > 1 ? "s" : ""}?`, "Each is sent to where it came from, as it was.");
      if (entered) await act("dead-letters/replay", { ids, reason: entered.reason }, (answer) => answer.answers.map((each) => `${each.id}: ${each.answer}`).join("\n"));
    },
  }, "Replay what is chosen");
  const rows = found.dead_letters.map((each) => {
    const box = h("input", { type: "checkbox", disabled: !each.replayable, "aria-label": `Choose ${each.id}` });
    boxes.set(each.id, box);
    return [box, time(each.at), each.id, each.reason, each.replayed ? `yes, ${each.replayed.times}×` : each.replayed === false ? "no" : "?", each.why_not ?? ""];
  });
  return [
    h("h1", {}, `Dead letters (${number(found.total)})`),
    rows.length ? h("p", { class: "buttons" }, again) : null,
    table("records that could not be applied, the newest first", [["", ""], ["at", "time"], ["id", "id"], ["reason", "id"], ["replayed", ""], ["cannot be replayed", ""]], rows, "There are none."),
  ];
}

function about({ scope, subject }) {
  if (scope === "dead_letter") return link("letters", "", `dead letter ${subject}`);
  if (!subject) return scope;
  const name = `${scope} ${subject}`;
  return PAGES[scope] ? link(scope, subject, name) : name;
}

async function audit() {
  const { commands } = await api("audit?limit=200");
  return [
    h("h1", {}, "Audit"),
    table("the last commands, the newest first", [["applied", "time"], ["command", ""], ["about", "id"], ["by", ""], ["why", ""], ["came of it", ""]],
      commands.map((each) => [time(each.applied_at), words(each.command),
        about(each),
        each.actor ?? "", each.reason ?? "",
        Object.entries(each.outcome).filter(([, count]) => count).map(([name, count]) => `${number(count)} ${words(name)}`).join(", ")]),
      "Nobody has asked for anything."),
  ];
}

function entrance(message) {
  const enter = (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", new FormData(event.target).get("token").trim());
    draw();
  };
  return [
    h("h1", {}, "Who are you?"),
    h("form", { class: "card", onsubmit: enter },
      h("p", {}, message ?? "Show a token of POD_AUTOMATION_API_TOKENS. It is kept until this tab is closed."),
      h("label", { class: "field" }, "Token", h("input", { name: "token", type: "password", required: true, autocomplete: "off" })),
      h("p", { class: "buttons" }, h("button", { class: "act" }, "Enter"))),
  ];
}

// Drawing: the page that the address names, again and again where it is live

const PAGES = { "": overview, pods, pod, post, member, activity, controls, letters, audit };
const LIVE = new Set(["", "pod", "activity", "controls"]);
let drawn = 0, again = 0;

function where() {
  const [page = "", ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  const id = rest.join("/");
  try {
    return [page, rest.length ? decodeURIComponent(id) : undefined];
  } catch {
    return [page, id]; // typed in by hand
  }
}

function busy() {
  // Nothing is redrawn under somebody's hands.
  const active = document.activeElement;
  return asking.open || (main.contains(active) && ["INPUT", "BUTTON", "SELECT"].includes(active.tagName)) || String(getSelection()).length > 0;
}

async function draw({ quietly = false } = {}) {
  clearTimeout(again);
  const turn = ++drawn;
  const [name, id] = where();
  const status = document.querySelector("#link");
  for (const each of document.querySelectorAll("nav a")) {
    if (each.getAttribute("href") === `#/${name}`) each.setAttribute("aria-current", "page");
    else each.removeAttribute("aria-current");
  }
  document.querySelector("#leave").hidden = !sessionStorage.getItem("token");
  try {
    if (!sessionStorage.getItem("token")) main.replaceChildren(...entrance());
    else {
      const page = PAGES[name];
      const content = page ? await page(id) : [h("h1", {}, "There is no such page")];
      if (turn !== drawn) return;
      const held = quietly && busy();
      if (!held) main.replaceChildren(...content.filter(Boolean));
      status.textContent = !LIVE.has(name) ? "" : held ? "held while you are at it" : "live";
      status.className = "";
    }
  } catch (error) {
    if (turn !== drawn) return;
    if (error instanceof Refused && error.status === 401) {
      sessionStorage.removeItem("token");
      main.replaceChildren(...entrance("This token is not known."));
    } else {
      status.textContent = error instanceof Refused ? error.message : "no answer";
      status.className = "off";
      if (!quietly) main.replaceChildren(h("h1", {}, "No answer"), h("p", { class: "bad" }, error.message));
    }
  }
  if (LIVE.has(name) && sessionStorage.getItem("token")) again = setTimeout(() => draw({ quietly: true }), REFRESH_MS);
}

document.querySelector("#find").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = new FormData(event.target).get("id").trim();
  const match = /^(pod|post|member):(.+)$/s.exec(text);
  if (match) location.hash = `#/${match[1]}/${encodeURIComponent(match[2].trim())}`;
  else if (text) location.hash = `#/activity/${encodeURIComponent(text)}`;
});
document.querySelector("#leave").addEventListener("click", () => {
  sessionStorage.removeItem("token");
  draw();
});
window.addEventListener("hashchange", () => {
  if (!taken()) {
    draw().then(() => main.focus());
  }
});

function taken() {
  const match = /^#token=(.+)$/.exec(location.hash);
  if (!match) return false;
  sessionStorage.setItem("token", decodeURIComponent(match[1]));
  // Out of the address, before anybody copies it.
  history.replaceState(null, "", "#/");
  draw();
  return true;
}

if (!taken()) draw();
