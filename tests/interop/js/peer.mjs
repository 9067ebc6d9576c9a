// A NATS client that knows nothing of the mesh, driven by a test: one JSON command a line on stdin, one JSON answer a
// line on stdout. `node peer.mjs nats://host:port`
import { createInterface } from "node:readline";
import { connect, headers } from "@nats-io/transport-node";
import { ServiceError, Svcm } from "@nats-io/services";

const nc = await connect({ servers: process.argv[2] });
const services = new Svcm(nc);
const client = services.client({ strategy: "stall", maxWait: 5000, stall: 300 });
let served = null;

async function all(iterator) {
  const items = [];
  for await (const item of await iterator) items.push(item);
  return items;
}

const commands = {
  // What the client half of @nats-io/services finds.
  async discover({ name, id }) {
    return {
      pings: await all(client.ping(name, id)),
      infos: await all(client.info(name, id)),
      stats: await all(client.stats(name, id)),
    };
  },

  async info({ name }) {
    return await all(client.info(name));
  },

  // An ordinary request, with the library's own inbox.
  async request({ subject, body = "", fields = {} }) {
    const h = headers();
    for (const [name, values] of Object.entries(fields)) for (const value of values) h.append(name, value);
    const reply = await nc.request(subject, body, { timeout: 10_000, headers: h });
    const error = ServiceError.toServiceError(reply);
    const seen = {};
    if (reply.headers) for (const [name, values] of reply.headers) seen[name] = values;
    return {
      body: reply.string(),
      fields: seen,
      error: error === null ? null : { code: error.code, message: error.message },
    };
  },

  // A service of its own: what it was asked stands in its answers.
  async serve({ name, prefix }) {
    served = await services.add({ name, version: "2.0.0", description: "from JavaScript" });
    const group = served.addGroup(prefix);
    group.addEndpoint("echo", (err, msg) => msg.respond(msg.data));
    group.addEndpoint("seen", (err, msg) => {
      const fields = {};
      for (const [name, values] of msg.headers ?? []) fields[name] = values;
      const h = headers();
      h.append("x-from", "js");
      h.append("x-from", "twice");
      msg.respond(JSON.stringify({ subject: msg.subject, reply: msg.reply, body: msg.string(), fields }), { headers: h });
    });
    group.addEndpoint("fail", (err, msg) => {
      const { code, text } = msg.json();
      msg.respondError(code, text, "the body is its own affair");
    });
    group.addEndpoint("throw", () => {
      throw new Error("thrown in JavaScript");
    });
    group.addEndpoint("pattern", { subject: "pattern.*", handler: (err, msg) => msg.respond(msg.subject) });
    await nc.flush();
    return { id: served.ping().id };
  },

  async stats() {
    return await served.stats();
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...options } = JSON.parse(line);
  let answer;
  try {
    answer = { result: await commands[command](options) };
  } catch (error) {
    answer = { failed: `${error.name}: ${error.message}` };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
await nc.close();
