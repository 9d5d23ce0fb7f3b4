/* What every part uses: elements from text, numbers and times for people, the classes of endpoints. */
'use strict';
const R = {};

/* Names come from outside: they are text, never markup, and what could turn a line around is shown as its number. */
R.clean = value => String(value).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu,
  sign => `\\u{${sign.codePointAt(0).toString(16)}}`);

const fill = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value == null || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'css') for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (name === 'data') Object.assign(node.dataset, value);
    else node.setAttribute(name, value === true ? '' : R.clean(value));
  }
  for (const child of children.flat(3)) {
    if (child == null || child === false) continue;
    node.append(child instanceof Node ? child : R.clean(child));
  }
  return node;
};
R.h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
R.s = (tag, attributes, ...children) =>
  fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
R.put = (node, ...children) => { node.replaceChildren(); return fill(node, null, children); };

/* In the order in which they stand in the map: what deserves a look first. */
R.CLASSES = {
  unknown: 'Unknown', llm_api: 'Models', code_host: 'Code hosts', registry: 'Registries', telemetry: 'Telemetry',
  private: 'Private network', localhost: 'This machine', ipc: 'Unix sockets', dns: 'Look-ups',
};
R.className = name => R.CLASSES[name] || name;
R.classOf = name => (R.CLASSES[name] ? name : 'unknown');
R.classOrder = name => { const at = Object.keys(R.CLASSES).indexOf(name); return at < 0 ? 0 : at; };

R.count = number => {
  number = number || 0;
  if (number < 10000) return String(number).replace(/\B(?=(\d{3})+$)/g, '\u2009');
  for (const [size, unit] of [[1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) {
    if (number >= size) return (number / size).toFixed(number / size < 100 ? 1 : 0) + unit;
  }
  return String(number);
};
R.bytes = number => {
  if (number == null) return '';
  if (number < 1024) return number + ' B';
  let unit = -1;
  while (number >= 1024 && unit < 5) { number /= 1024; unit += 1; }
  return number.toFixed(number < 100 ? 1 : 0) + ' ' + ['KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'][unit];
};
R.duration = ms => {
  if (ms == null) return '';
  if (ms < 1000) return Math.round(ms) + ' ms';
  if (ms < 60000) return (ms / 1000).toFixed(1) + ' s';
  const s = Math.floor(ms / 1000), m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  if (d) return `${d}d ${h % 24}h`;
  return h ? `${h}h ${m % 60}m` : `${m}m ${s % 60}s`;
};
const two = number => String(number).padStart(2, '0');
/* All times are UTC, as everywhere in rano. */
R.day = ms => new Date(ms).toISOString().slice(0, 10);
R.clock = (ms, withMillis) => new Date(ms).toISOString().slice(11, withMillis ? 23 : 19);
R.moment = ms => (Number.isFinite(ms) ? `${R.day(ms)} ${R.clock(ms)}` : '');
R.minute = ms => { const at = new Date(ms); return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`; };
R.ms = text => (text ? Date.parse(text) : NaN);

/* A text that means itself in the filter language. */
R.quote = text => (/^[\w.-]+$/.test(text) ? text : `"${text.replace(/[\\"]/g, '\\$&')}"`);
R.place = (ip, port) => {
  if (!ip) return '';
  if (port == null) return ip;
  return (ip.includes(':') ? `[${ip}]` : ip) + ':' + port;
};
/* What a connection is called: its name, marked with ~ where that is a guess, else its address. */
R.label = row => (row.domain
  ? (row.domain_source === 'ptr' || row.domain_source === 'shared_dns' ? '~' : '') + row.domain
    + ((row.domain_port ?? row.remote_port) == null ? '' : ':' + (row.domain_port ?? row.remote_port))
  : R.place(row.remote_ip, row.remote_port) || row.local_ip || '?');
R.debounce = (wait, work) => {
  let timer = 0;
  return (...given) => { clearTimeout(timer); timer = setTimeout(() => work(...given), wait); };
};
/* At most every `wait` ms, the last call surely. */
R.throttle = (wait, work) => {
  let timer = 0, last = 0;
  return () => {
    if (timer) return;
    timer = setTimeout(() => { timer = 0; last = performance.now(); work(); },
      Math.max(0, last + wait - performance.now()));
  };
};
