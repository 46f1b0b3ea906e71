// An authorization server that nobody wrote with lucid-proxy in mind: `oidc-provider`, certified by the OpenID
// Foundation. It rotates strictly: a refresh token works once, and one that comes again revokes the whole grant.
//
// Around it stands what it lacks to be taken for Lucid: JSON bodies at its token endpoints, and an API that takes its
// access tokens, each only until its grant has a newer one. Tokens are judged by the provider, never here.
//
// Started by tests/it/independent.rs in the directory where its packages are installed. It prints one line of JSON,
// with its port and the first pair of a grant, then one for each refresh, and ends with its standard input.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { join } from "node:path";
import { json, buffer } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

// Standard output is for the test alone; the provider has remarks to make.
console.info = console.error;

const packages = createRequire(join(process.cwd(), "package.json"));
const { Provider } = await import(pathToFileURL(packages.resolve("oidc-provider")));

const CLIENT_ID = process.env.LUCID_CLIENT_ID;
const CLIENT_SECRET = process.env.LUCID_CLIENT_SECRET;
const USER = { accountId: 52, email: "ada@example.test", fullName: "Ada Demo", id: 4711, username: "ada" };
const SCOPE = "offline_access user.profile";
const FORM = "application/x-www-form-urlencoded";
const ACCESS_LIFETIME = Number(process.env.ACCESS_LIFETIME); // seconds
const DAY = 24 * 60 * 60;

const counts = {
  token_posts: 0,
  rotations: 0,
  errors: {},
  reused_refresh_tokens: 0,
  refresh_tokens_spent_twice: 0,
  grants_revoked: 0,
  api_by_status: {},
};
const spent = new Set();
const newest = new Map(); // the id of a grant to that of its newest access token

const server = createServer((request, response) => {
  answer(request, response).catch((error) => {
    // Clients that leave in the middle of a body come here too.
    console.error(error);
    response.destroy();
  });
});
// A connection that is closed just as it is used again is another test's subject.
server.keepAliveTimeout = 10 * 60 * 1000;
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
const { port } = server.address();
const provider = independent(`http://127.0.0.1:${port}`);
const oauth = provider.callback();

process.stdin.on("end", () => process.exit(0)).resume();
print({ port, pair: await firstPair() });

function independent(issuer) {
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: CLIENT_ID,
        client_secret: CLIENT_SECRET,
        grant_types: ["authorization_code", "refresh_token"],
        redirect_uris: ["http://127.0.0.1/callback"],
        token_endpoint_auth_method: "client_secret_post",
      },
    ],
    features: {
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      revocation: { enabled: true },
    },
    findAccount: (_, accountId) => ({ accountId, claims: () => ({ sub: accountId }) }),
    rotateRefreshToken: true,
    routes: {
      introspection: "/oauth2/token/introspect",
      revocation: "/oauth2/token/revoke",
      token: "/oauth2/token",
    },
    scopes: SCOPE.split(" "),
    ttl: { AccessToken: ACCESS_LIFETIME, Grant: DAY, RefreshToken: DAY },
  });
  provider.on("grant.success", () => {
    counts.rotations += 1;
    print({ rotations: counts.rotations });
  });
  provider.on("grant.error", (_, error) => {
    count(counts.errors, error.error);
    print({ refused: error.error });
    counts.reused_refresh_tokens += Number(error.error_detail === "refresh token already used");
  });
  provider.on("server_error", (_, error) => {
    count(counts.errors, "server_error");
    console.error(error);
  });
  provider.on("grant.revoked", () => {
    counts.grants_revoked += 1;
  });
  // Two requests that come at the same moment could both find a token unspent: that is no reuse to the provider.
  provider.on("refresh_token.consumed", ({ jti }) => {
    counts.refresh_tokens_spent_twice += Number(spent.has(jti));
    spent.add(jti);
  });
  provider.on("access_token.saved", ({ grantId, jti }) => newest.set(grantId, jti));
  return provider;
}

// What a person's approval and the exchange of the code would have left.
async function firstPair() {
  const accountId = String(USER.id);
  const client = await provider.Client.find(CLIENT_ID);
  const grant = new provider.Grant({ accountId, clientId: CLIENT_ID });
  grant.addOIDCScope(SCOPE);
  const grantId = await grant.save();
  const content = { accountId, client, grantId, gty: "authorization_code", scope: SCOPE };
  const access_token = await new provider.AccessToken(content).save();
  const refresh_token = await new provider.RefreshToken(content).save();
  const { iat, exp } = await provider.AccessToken.find(access_token);
  return { access_token, refresh_token, issued_at: time(iat), expires_at: time(exp) };
}

async function answer(request, response) {
  const path = request.url.split("?")[0];
  if (path === "/counts") {
    return reply(response, 200, counts);
  }
  if (path.startsWith("/oauth2/")) {
    return await authorize(path, request, response);
  }
  const status = await api(path, request, response);
  count(counts.api_by_status, status);
}

// The provider takes forms, and says that it takes a body that was read before it from `request.body`.
async function authorize(path, request, response) {
  counts.token_posts += Number(path === "/oauth2/token");
  if (request.headers["content-type"] === "application/json") {
    try {
      request.body = await json(request);
    } catch {
      return reply(response, 400, { error: "invalid_request", error_description: "the body is not JSON" });
    }
    request.headers["content-type"] = FORM;
  }
  await oauth(request, response);
}

async function api(path, request, response) {
  const [, token] = /^Bearer (.+)$/.exec(request.headers.authorization ?? "") ?? [];
  if (!(await isAlive(token))) {
    return reply(response, 401, { code: "unauthorized", message: "the token is dead or none", requestId: "" });
  }
  switch (`${request.method} ${path}`) {
    case "GET /users/me/profile":
      return reply(response, 200, USER);
    case "POST /sandbox/echo":
      return reply(response, 200, await buffer(request));
    default:
      return reply(response, 404, { code: "notFound", message: path, requestId: "" });
  }
}

async function isAlive(token) {
  const access = await provider.AccessToken.find(token);
  if (!access?.isValid) {
    return false;
  }
  const grant = await provider.Grant.find(access.grantId);
  return grant !== undefined && newest.get(access.grantId) === access.jti;
}

function reply(response, status, content) {
  const isJson = !Buffer.isBuffer(content);
  const body = isJson ? JSON.stringify(content) : content;
  response.writeHead(status, {
    "Content-Length": Buffer.byteLength(body),
    "Content-Type": isJson ? "application/json" : "application/octet-stream",
  });
  response.end(body);
  return status;
}

function count(by, key) {
  by[key] = (by[key] ?? 0) + 1;
}

function print(line) {
  // Into a pipe this is written before it returns.
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

function time(epochSeconds) {
  return new Date(epochSeconds * 1000).toISOString();
}
