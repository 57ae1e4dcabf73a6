// BullMQ's part of the benchmark: see ../protocol.py for what is asked on standard input.
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";

import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";

const config = JSON.parse(process.argv[2]);
const connect = () => new Redis(config.url, { maxRetriesPerRequest: null });
const queue = new Queue("bench", { connection: connect() });
const lateness = [];
let started = { first_ms: 0, last_ms: 0 };
let worker = null;

function jobs(count, fromMs, toMs) {
  const pods = Array.from({ length: 100 }, () => randomUUID());
  const members = Array.from({ length: 2000 }, () => randomUUID());
  const made = [];
  let post;
  for (let n = 0; n < count; n++) {
    if (n % 20 === 0) post = randomUUID();
    made.push({
      due_ms: Math.floor(fromMs + ((toMs - fromMs) * n) / count),
      data: {
        pod_id: pods[n % 100],
        post_id: post,
        member_id: members[(n * 7919) % 2000],
        engagement_type: n % 2 ? "like" : "comment",
      },
    });
  }
  return made;
}

async function schedule({ count, from_ms, to_ms }) {
  const all = jobs(count, from_ms, to_ms);
  const clean = config.keep_jobs ? {} : { removeOnComplete: true };
  let next = 0;
  const some = async () => {
    while (next < count) {
      const from = next;
      next += config.chunk;
      const chunk = all.slice(from, next).map(({ due_ms, data }) => ({
        name: data.engagement_type,
        data,
        opts: { delay: Math.max(0, due_ms - Date.now()), ...clean },
      }));
      await queue.addBulk(chunk);
    }
  };
  const began = performance.now();
  await Promise.all(Array.from({ length: config.enqueuers }, some));
  return { seconds: (performance.now() - began) / 1000 };
}

async function work() {
  const options = { connection: connect() };
  if (config.concurrency) options.concurrency = config.concurrency;
  worker = new Worker(
    "bench",
    async (job) => {
      const now = Date.now();
      if (lateness.length === 0) started.first_ms = now;
      started.last_ms = now;
      lateness.push(now - job.timestamp - job.opts.delay);
    },
    options,
  );
  worker.on("error", (error) => console.error(error.message));
  await worker.waitUntilReady();
  return {};
}

async function fired({ count }) {
  while (lateness.length < count) await new Promise((done) => setTimeout(done, 20));
  const found = { ...started, lateness_ms: lateness.slice() };
  lateness.length = 0;
  return found;
}

async function stop() {
  await worker?.close();
  await queue.close();
  return {};
}

const hello = async () => ({});
const actions = { hello, schedule, work, fired, stop };
for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  console.log(JSON.stringify(await actions[asked.do](asked)));
  if (asked.do === "stop") process.exit(0);
}
