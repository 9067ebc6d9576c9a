// Moleculer over NATS: `node moleculer.mjs serve|call bare|all nats://…`, one end a process.
//
// Speaks the lines of tests/bench/worker.py, and its loop has the shape of tests/bench/loop.py: so many
// calls in flight, each worker makes its next call when the last one is answered.
import { createInterface } from "node:readline";
import { ServiceBroker } from "moleculer";

const [role, variant, address] = process.argv.slice(2);
const TIMEOUT_MS = 30_000;
const EMPTY = JSON.stringify({ text: "" }).length;

const say = (values) => process.stdout.write(JSON.stringify(values) + "\n");

function brokerOptions(name) {
  const common = {
    nodeID: `${name}-${process.pid}`,
    namespace: "bench",
    logger: false,
    transporter: address,
    requestTimeout: TIMEOUT_MS,
  };
  if (variant !== "all") return common;
  return {
    ...common,
    circuitBreaker: { enabled: true, threshold: 0.5, minRequestCount: 20, windowTime: 60, halfOpenTime: 10_000 },
    retryPolicy: { enabled: true, retries: 2, delay: 100, maxDelay: 1000, factor: 2 },
    // Room for all that the largest cell has in flight: refusals are not what is measured.
    bulkhead: { enabled: true, concurrency: 1024, maxQueueSize: 1024 },
    metrics: { enabled: true },
    tracing: { enabled: true, events: false, sampling: { rate: 1.0 } },
    validator: true,
  };
}

const EchoService = {
  name: "bench",
  actions: {
    echo: {
      params: variant === "all" ? { text: "string" } : undefined,
      handler: (ctx) => ctx.params,
    },
  },
};

const quantile = (sorted, share) =>
  sorted.length ? sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))] : 0;

async function drive(call, { inFlight, seconds, calls }) {
  const took = [];
  let errors = 0;
  let firstError = "";
  const shares = Array.from({ length: inFlight }, (_, n) => Math.floor(calls / inFlight) + (n < calls % inFlight ? 1 : 0));
  const cpu = process.cpuUsage();
  const start = performance.now();
  const stop = start + (calls ? 3_600_000 : seconds * 1000);
  async function work(share) {
    let now = performance.now();
    for (let made = 0; (calls === 0 || made < share) && now < stop; made++) {
      try {
        await call();
      } catch (error) {
        errors += 1;
        firstError ||= `${error.name}: ${error.message}`;
        await new Promise((resolve) => setTimeout(resolve, 1));
        now = performance.now();
        continue;
      }
      const then = performance.now();
      took.push(then - now);
      now = then;
    }
  }
  await Promise.all(shares.map(work));
  const elapsedMs = performance.now() - start;
  const used = process.cpuUsage(cpu);
  took.sort((a, b) => a - b);
  return {
    calls: took.length,
    errors,
    first_error: firstError.slice(0, 300),
    elapsed_s: elapsedMs / 1000,
    p50_us: quantile(took, 0.5) * 1000,
    p99_us: quantile(took, 0.99) * 1000,
    cpu_s: (used.user + used.system) / 1e6,
  };
}

async function serve(lines) {
  const broker = new ServiceBroker(brokerOptions("service"));
  broker.createService(EchoService);
  await broker.start();
  say({ ready: true, address });
  for await (const _ of lines);
  await broker.stop();
}

async function call(lines) {
  const broker = new ServiceBroker(brokerOptions("caller"));
  await broker.start();
  await broker.waitForServices("bench", TIMEOUT_MS, 20);
  say({ ready: true, address });
  const commands = lines[Symbol.asyncIterator]();
  for (let next = await commands.next(); !next.done; next = await commands.next()) {
    const wanted = JSON.parse(next.value);
    const params = { text: "x".repeat(Math.max(0, wanted.size - EMPTY)) };
    const echo = () => broker.call("bench.echo", params);
    const answer = await echo();
    if (answer.text !== params.text) throw new Error(`the echo of ${wanted.size} bytes is another value`);
    const inFlight = wanted.in_flight;
    await drive(echo, { inFlight: wanted.warm_up_in_flight, seconds: wanted.warm_up_s, calls: 0 });
    say({ phase: "warm" });
    await commands.next();
    say(await drive(echo, { inFlight, seconds: wanted.seconds, calls: wanted.calls }));
  }
  await broker.stop();
}

const lines = createInterface({ input: process.stdin, crlfDelay: Infinity });
await { serve, call }[role](lines);
process.exit(0);
