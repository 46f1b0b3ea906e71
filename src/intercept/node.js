'use strict';
// Loaded by lucid-proxy before a program of Node: has connections to Lucid go through the proxy of HTTPS_PROXY. Node looks
// at that in late versions alone, and there not for a program that has an https.Agent of its own. What Node has led there
// itself has a socket already, and is left alone, as is everything else.
(() => {
  const hosts = [/* HOSTS */];
  const url = process.env.HTTPS_PROXY || process.env.https_proxy;
  if (!url) return;
  let proxy;
  try {
    proxy = new URL(url);
  } catch {
    return;
  }
  if (proxy.protocol !== 'http:') return;

  const net = require('net');
  const tls = require('tls');
  const { Duplex } = require('stream');
  const connectPlain = net.connect;
  const connectTls = tls.connect;
  const LARGEST_HEAD = 16384;

  const login = proxy.username
    ? 'Proxy-Authorization: Basic ' +
      Buffer.from(`${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`).toString('base64') +
      '\r\n'
    : '';

  // A connection through the proxy. It can be written to at once; what is written goes when the proxy has agreed.
  class Tunnel extends Duplex {
    constructor(host, port) {
      super();
      this.opened = false;
      this.waiting = null;
      this.head = Buffer.alloc(0);
      this.socket = connectPlain({ host: proxy.hostname.replace(/^\[|\]$/g, ''), port: Number(proxy.port) || 80 });
      this.socket.write(`CONNECT ${host}:${port} HTTP/1.1\r\nHost: ${host}:${port}\r\n${login}\r\n`);
      this.socket.on('data', (data) => (this.opened ? this.pass(data) : this.answer(data)));
      this.socket.on('end', () => {
        if (this.opened) this.push(null);
        else this.destroy(new Error(`lucid-proxy ended the connection to ${host} before it was open`));
      });
      this.socket.on('error', (error) => this.destroy(error));
      this.socket.on('close', () => this.destroy());
    }

    answer(data) {
      this.head = Buffer.concat([this.head, data]);
      const end = this.head.indexOf('\r\n\r\n');
      if (end < 0) {
        if (this.head.length > LARGEST_HEAD) this.destroy(new Error('the answer of lucid-proxy to CONNECT has no end'));
        return;
      }
      const head = this.head.toString('latin1', 0, end);
      const rest = this.head.subarray(end + 4);
      this.head = null;
      if (!/^HTTP\/1\.[01] 2\d\d/.test(head)) {
        this.destroy(new Error(`lucid-proxy refused the connection: ${head.split('\r\n')[0]}`));
        return;
      }
      this.opened = true;
      if (this.waiting) this.waiting();
      if (rest.length) this.pass(rest);
    }

    pass(data) {
      if (!this.push(data)) this.socket.pause();
    }

    // When the connection is open.
    then_(act) {
      if (this.opened) act();
      else this.waiting = act;
    }

    _read() {
      if (this.opened) this.socket.resume();
    }

    _write(data, encoding, done) {
      this.then_(() => this.socket.write(data, encoding, done));
    }

    _final(done) {
      this.then_(() => this.socket.end(done));
    }

    _destroy(error, done) {
      this.socket.destroy();
      done(error);
    }

    // What http and undici ask of a socket.
    ref() {
      this.socket.ref();
      return this;
    }

    unref() {
      this.socket.unref();
      return this;
    }

    setNoDelay(on) {
      this.socket.setNoDelay(on);
      return this;
    }

    setKeepAlive(on, delay) {
      this.socket.setKeepAlive(on, delay);
      return this;
    }
  }

  // connect(options), connect(port, host, options), connect(port, options), each with a callback behind.
  const optionsOf = (args) => {
    if (args[0] !== null && typeof args[0] === 'object') return { ...args[0] };
    if (!/^\d+$/.test(String(args[0]))) return null;
    const options = { port: Number(args[0]) };
    let at = 1;
    if (typeof args[at] === 'string') options.host = args[at++];
    if (args[at] !== null && typeof args[at] === 'object') Object.assign(options, args[at]);
    return options;
  };

  const isOurs = (options) =>
    options &&
    !options.socket &&
    !options.path &&
    Number(options.port) === 443 &&
    typeof options.host === 'string' &&
    hosts.includes(options.host.toLowerCase().replace(/\.$/, ''));

  tls.connect = function connect(...args) {
    const options = optionsOf(args);
    if (!isOurs(options)) return connectTls.apply(this, args);
    const callback = typeof args[args.length - 1] === 'function' ? [args[args.length - 1]] : [];
    const tunnel = new Tunnel(options.host.toLowerCase().replace(/\.$/, ''), 443);
    options.socket = tunnel;
    // Without a connection of its own, TLS has no host to take the name from.
    if (options.servername === undefined) options.servername = options.host;
    const socket = connectTls.call(this, options, ...callback);
    // A program does not live on for an idle connection, of which TLS tells its own handle only.
    for (const name of ['ref', 'unref']) {
      const own = socket[name];
      socket[name] = function (...more) {
        tunnel[name]();
        return own.apply(this, more);
      };
    }
    return socket;
  };
  require('module').syncBuiltinESMExports();
})();
