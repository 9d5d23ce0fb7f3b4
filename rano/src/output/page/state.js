/* What is known, and how events change it. */
R.state = {
  token: '', run: '', following: null, sessions: [], database: '', version: '',
  filter: '', since: null, until: null,
  snap: null, sums: {}, paths: new Map(), timeline: null,
  rows: new Map(), open: new Map(), older: null,
  /* Ids of the last events that are in the sums, and in the list: the two are asked for apart. */
  summed: 0, listed: 0, recent: [],
  sort: { key: 'at', down: true }, chosen: null, live: 'off', paused: false, busy: 0,
  weight: 'bytes', network: true, strip: 'connects', report: null,
};
const S = R.state;

R.api = async (path, asked) => {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(asked || {})) if (value != null && value !== '') query.set(name, value);
  const text = query.toString();
  let answer;
  try {
    answer = await fetch(`/api/${path}${text ? '?' + text : ''}`, { headers: { Authorization: `Bearer ${S.token}` } });
  } catch {
    throw Object.assign(new Error('rano does not answer'), { code: 0 });
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(body.error || answer.statusText), { code: answer.status });
  return body;
};

R.asked = () => ({
  run: S.run, filter: S.filter,
  since: S.since == null ? '' : new Date(S.since).toISOString(),
  until: S.until == null ? '' : new Date(S.until).toISOString(),
});

const socketOf = row =>
  [row.pid, row.netns, row.proto, row.local_ip, row.local_port, row.remote_ip, row.remote_port].join(' ');
const pathOf = row =>
  [row.agent || row.provider, row.tool || '', row.program || row.process || row.comm, row.class || row.endpoint_type,
    row.endpoint || row.domain || row.remote_ip || '?'].join('\n');
const begun = row => R.ms(row.opened_at || row.ts);

const keep = row => {
  row.at = begun(row);
  row.key = row.key || `${row.first || row.id} ${socketOf(row)}`;
  S.rows.set(row.key, row);
  if (row.standing === 'open') S.open.set(socketOf(row), row);
  return row;
};

R.takeSnapshot = snap => {
  S.snap = snap;
  S.sums = { ...snap.report.summary };
  S.paths = new Map(snap.graph.paths.map(path => [pathOf(path), { ...path }]));
  S.timeline = snap.timeline;
  S.summed = snap.last || 0;
  /* What the stream told while the answer was on its way. */
  for (const event of S.recent) if (event.id > S.summed) addToSums(event);
  S.summed = Math.max(S.summed, ...S.recent.slice(-1).map(event => event.id));
};
R.takeConnections = (answer, more) => {
  if (!more) { S.rows = new Map(); S.open = new Map(); }
  for (const row of answer.connections) if (!more || !S.rows.has(row.key)) keep(row);
  S.older = answer.before;
  if (!more) S.listed = answer.last || 0;
};

const KEPT = 20000;
const forget = () => {
  if (S.rows.size <= KEPT) return;
  for (const row of [...S.rows.values()].sort((a, b) => a.at - b.at)) {
    if (S.rows.size <= KEPT * 0.9) break;
    if (row.standing !== 'open') S.rows.delete(row.key);
  }
};

/* An event that is told again, with its name, changes what it says and no sum. */
R.takeEvents = events => {
  let news = 0;
  for (const event of events) {
    if (event.id > S.summed) { S.summed = event.id; addToSums(event); S.recent.push(event); }
    const isNew = event.id > S.listed;
    if (isNew) { S.listed = event.id; news += 1; }
    addToRows(event, isNew);
  }
  if (S.recent.length > 1000) S.recent.splice(0, 500);
  if (news) forget();
  return news;
};
const addToRows = (event, isNew) => {
  const socket = socketOf(event);
  const known = S.open.get(socket);
  const word = event.event;
  if (word === 'connect' || word === 'accept') {
    if (known && (known.first || known.id) === event.id) { Object.assign(known, event); return; }
    if (!isNew) {
      const again = [...S.rows.values()].find(row => row.first === event.id);
      if (again && event.domain && !again.domain) {
        Object.assign(again, { domain: event.domain, domain_source: event.domain_source });
      }
      return;
    }
    keep({ ...event, first: event.id, opened_at: event.ts, standing: 'open', accepted: word === 'accept', fresh: true });
    return;
  }
  if (word === 'close' && known) {
    S.open.delete(socket);
    Object.assign(known, event, { standing: 'closed', alert: known.alert || event.alert, at: known.at });
    return;
  }
  if (!isNew) return;
  const standing = word === 'close' ? 'closed' : word === 'fail' ? 'failed' : 'listening';
  const row = { ...event, first: event.id, standing, fresh: true };
  if (word === 'close' && event.duration_ms != null) {
    row.opened_at = new Date(R.ms(event.ts) - event.duration_ms).toISOString();
  }
  keep(row);
};
const addToSums = event => {
  const counted = { connect: 'connects', close: 'closes', fail: 'fails', accept: 'accepts', listen: 'listens' }[event.event];
  const ends = event.event === 'close' || event.event === 'fail';
  const sent = ends ? event.bytes_sent || 0 : 0, received = ends ? event.bytes_recv || 0 : 0;
  const endpoint = event.domain || event.remote_ip || '?';
  const key = pathOf(event);
  let path = S.paths.get(key);
  if (!path) {
    path = {
      provider: event.provider, agent: event.agent, tool: event.tool, process: event.program || event.comm,
      class: event.endpoint_type || 'unknown', endpoint, named: Boolean(event.domain), proto: event.proto,
      domain_source: event.domain_source, connects: 0, closes: 0, fails: 0, bytes_sent: 0, bytes_recv: 0, isNew: true,
    };
    S.paths.set(key, path);
  }
  for (const sums of [path, S.sums]) {
    sums[counted] = (sums[counted] || 0) + 1;
    sums.bytes_sent = (sums.bytes_sent || 0) + sent;
    sums.bytes_recv = (sums.bytes_recv || 0) + received;
  }
  S.sums.events = (S.sums.events || 0) + 1;
  if (counted === 'connects') S.sums.active = (S.sums.active || 0) + 1;
  if (counted === 'closes') S.sums.active = Math.max(0, (S.sums.active || 0) - 1);
  const strip = S.timeline;
  if (!strip || !strip.parts) return;
  const at = Math.floor((R.ms(event.ts) - R.ms(strip.from)) / strip.step_ms);
  if (at < 0 || at > 2000) return;
  const name = R.classOf(event.endpoint_type || 'unknown');
  const row = strip.classes[name] = strip.classes[name] || { connects: [], bytes: [] };
  strip.parts = Math.max(strip.parts, at + 1);
  if (counted === 'connects' || counted === 'fails') row.connects[at] = (row.connects[at] || 0) + 1;
  row.bytes[at] = (row.bytes[at] || 0) + sent + received;
};

/* Terms are put into the one filter box, and taken out again by the same click. */
R.toggleTerm = term => {
  const terms = S.filter;
  const padded = ` ${terms} `;
  const next = padded.includes(` ${term} `) ? padded.replace(` ${term} `, ' ') : `${terms} ${term}`;
  R.setFilter(next.trim().replace(/\s+/g, ' '));
};
R.hasTerm = term => ` ${S.filter} `.includes(` ${term} `);
R.endpointTerm = path => (path.named || path.domain
  ? `domain:${R.quote(path.endpoint || path.domain)}`
  : path.proto === 'unix' ? R.quote(path.endpoint || path.remote_ip) : `ip:${path.endpoint || path.remote_ip}`);
