/* What stands around the map: findings, sessions, the comparison, the details of one connection, the tables. */
(() => {
  const finding = found => {
    const by = found.process && found.process !== 'unknown' ? ` by ${found.process}` : '';
    const to = found.endpoint ? [R.h('b', null, found.endpoint), by] : [];
    switch (found.kind) {
      case 'alerts': return ['alert', 'Alerts', `${R.count(found.count)} raised`];
      case 'unknown': return ['unknown', 'Unknown', [to, ` · ${R.bytes(found.bytes_sent)} sent`]];
      case 'sent': return ['sent', 'Much sent', [R.bytes(found.bytes_sent), ' to ', to]];
      case 'failing': return ['fail', 'Never reached', [to, ` · ${R.count(found.fails)} attempts`]];
      case 'unclean': return ['warn', 'Unclean end', 'rano was killed or the machine stopped; what came after is not here'];
      default: return ['warn', 'May be missing', `${R.count(found.count)} ${(found.meaning || found.gap).split(':')[0]}`];
    }
  };
  let all = false;
  R.drawFindings = () => {
    const box = document.getElementById('findings');
    const list = S.snap ? S.snap.findings : [];
    if (!list.length) {
      const watched = S.snap && S.snap.completeness.watched;
      R.put(box, R.h('p', { class: 'calm' }, R.h('b', null, 'Nothing to look at first.'), ' ', watched ? watched[0].toUpperCase() + watched.slice(1) + '.' : ''));
      return;
    }
    const most = all ? list.length : matchMedia('(max-width: 640px)').matches ? 3 : 6;
    R.put(box, R.h('h2', null, 'Look at these'), R.h('ul', null, list.slice(0, most).map(found => {
      const [kind, title, text] = finding(found);
      const body = [R.h('i', { class: `mark m-${kind}`, 'aria-hidden': 'true' }), R.h('strong', null, title), R.h('span', null, text)];
      if (found.tool && found.kind !== 'missed') body.push(R.h('code', { title: found.tool }, found.tool.length > 48 ? `${found.tool.slice(0, 47)}…` : found.tool));
      const isOn = found.filter && S.filter === found.filter;
      return R.h('li', null, found.filter && !S.report
        ? R.h('button', { class: `finding${isOn ? ' on' : ''}`, title: isOn ? 'show everything again' : `filter: ${found.filter}`, onclick: () => R.setFilter(isOn ? '' : found.filter) }, body)
        : R.h('div', { class: 'finding', title: found.meaning }, body));
    })), list.length > most || all ? R.h('button', { class: 'plain', onclick: () => { all = !all; R.drawFindings(); } }, all ? 'fewer' : `${list.length - most} more`) : null);
  };

  R.drawHead = () => {
    const session = (S.snap && S.snap.report.session) || {};
    const name = document.getElementById('session');
    if (name) {
      const many = S.snap && (S.snap.report.sessions || []).length > 1;
      const state = session.running ? 'running' : session.clean_exit === false ? 'unclean' : 'ended';
      R.put(name, R.h('i', { class: `state ${state}` }), many ? `${S.snap.report.sessions.length} sessions` : session.name || session.run_id || 'no session',
        R.h('small', null, many ? '' : state === 'running' ? `since ${R.moment(R.ms(session.started_at))}` : R.moment(R.ms(session.started_at))));
    }
    const sums = S.sums;
    const numbers = [
      ['active', S.snap && S.snap.report.session && !session.running && !S.filter && S.since == null ? session.active : sums.active, 'open now'], ['connects', sums.connects, ''], ['failed', sums.fails, ''],
    ];
    R.put(document.getElementById('numbers'),
      numbers.map(([label, value]) => R.h('span', { class: label === 'failed' && value ? 'bad' : null }, R.h('b', null, R.count(value)), ' ', label)),
      R.h('span', null, '↑ ', R.h('b', null, R.bytes(sums.bytes_sent || 0)), R.h('small', null, ' sent')),
      R.h('span', null, '↓ ', R.h('b', null, R.bytes(sums.bytes_recv || 0)), R.h('small', null, ' received')));
    const complete = S.snap && S.snap.completeness;
    const badge = document.getElementById('complete');
    if (badge && complete) {
      const missed = Object.keys(S.snap.report.completeness.missed).length;
      R.put(badge, complete.complete ? 'nothing missed' : `${missed} ${missed === 1 ? 'gap' : 'gaps'}`);
      badge.className = complete.complete ? 'ok' : 'gap';
      badge.title = complete.watched || Object.entries(S.snap.report.completeness.missed).map(([gap, count]) => `${gap}: ${count}`).join('\n');
    }
    R.drawLive();
  };
  R.drawLive = () => {
    const mark = document.getElementById('live');
    if (!mark) return;
    const words = { live: 'live', off: 'stored', lost: 'reconnecting…', connecting: 'connecting…', zoomed: 'zoomed' };
    const isStored = S.live === 'live' && S.snap && S.snap.report.session && !S.snap.report.session.running;
    R.put(mark, S.paused ? 'paused' : isStored ? 'stored' : S.busy ? `live · ${R.count(S.busy)} not shown one by one` : words[S.live]);
    mark.className = S.paused ? 'paused' : isStored ? 'off' : S.live;
    mark.setAttribute('aria-pressed', String(S.paused));
  };

  /* One connection, whole. */
  const facts = row => [
    ['State', [row.standing, row.state, row.error].filter((it, at, list) => it && list.indexOf(it) === at).join(' · ')],
    ['Endpoint', R.label(row)],
    ['Name known by', row.domain ? row.domain_source : 'no name is known'],
    ['Through the proxy', row.via], ['Carries on for', row.relay_for ? `pid ${row.relay_for}` : ''],
    ['Class', R.className(row.endpoint_type || 'unknown')],
    ['Remote', R.place(row.remote_ip, row.remote_port)], ['Local', R.place(row.local_ip, row.local_port)],
    ['Protocol', row.proto], ['Began', row.preexisting ? `${R.moment(row.at)}, or before: it was there already` : R.moment(row.at)],
    ['Open for', R.duration(row.duration_ms)],
    ['Sent', row.bytes_sent == null ? '' : `${R.bytes(row.bytes_sent)} (${row.bytes_sent})`],
    ['Received', row.bytes_recv == null ? '' : `${R.bytes(row.bytes_recv)} (${row.bytes_recv})`],
    ['Agent', row.agent ? `${row.agent}${row.agent_pid ? ` (${row.agent_pid})` : ''}` : row.provider],
    ['Tool call', row.tool ? `${row.tool}${row.tool_pid ? ` (${row.tool_pid})` : ''}` : ''],
    ['Program', `${row.program || row.comm}${row.pid ? `, pid ${row.pid}` : ''}`],
    ['Executable', row.exe], ['Working directory', row.cwd], ['User id', row.uid],
    ['Owner', { exact: 'exact: seen in the call itself', inherited: 'inherited', polled: 'found by polling', unattributed: 'not known' }[row.owner_quality] || row.owner_quality],
    ['Seen by', row.source], ['Network namespace', row.netns], ['Event', row.id],
  ];
  R.openDrawer = row => {
    const drawer = document.getElementById('drawer');
    const line = (row.ancestry_path || '').split(',').filter(Boolean).map(step => {
      const at = step.lastIndexOf(':');
      let name = step.slice(0, at);
      try { name = decodeURIComponent(name); } catch { /* as it is */ }
      return [name, step.slice(at + 1)];
    });
    if (row.comm && !(line.length && line[line.length - 1][1] === String(row.pid))) line.push([row.program || row.comm, row.pid]);
    const terms = [R.endpointTerm(row), `process:${R.quote(row.comm || 'unknown')}`, row.pid ? `pid:${row.pid}` : null].filter(Boolean);
    R.put(drawer,
      R.h('header', null, R.h('h2', { class: `c-${R.classOf(row.endpoint_type || 'unknown')}` }, R.label(row)),
        R.h('button', { class: 'plain', 'aria-label': 'Close', onclick: () => drawer.close() }, '✕')),
      row.alert ? R.h('p', { class: 'alerted' }, 'It raised an alert.') : null,
      line.length ? R.h('ol', { class: 'line', 'aria-label': 'Ancestry' }, line.map(([name, pid]) => R.h('li', null, name, R.h('small', null, ` ${pid ?? ''}`)))) : null,
      row.cmdline ? R.h('pre', null, row.cmdline) : null,
      R.h('dl', null, facts(row).filter(([, value]) => value != null && value !== '').map(([name, value]) => [R.h('dt', null, name), R.h('dd', null, value)])),
      S.report ? null : R.h('p', { class: 'acts' }, terms.map(term => R.h('button', { onclick: () => { drawer.close(); R.setFilter(term); } }, `only ${term}`)),
        R.h('button', { onclick: event => R.copy(JSON.stringify(row, null, 1), event.currentTarget) }, 'copy as JSON')));
    if (!drawer.open) drawer.show();
    drawer.setAttribute('aria-label', `Connection to ${R.label(row)}`);
  };
  R.copy = async (text, button) => {
    try { await navigator.clipboard.writeText(text); R.put(button, 'copied'); } catch { R.put(button, 'cannot copy'); }
  };

  /* Sessions, and two of them side by side. */
  R.openSessions = async () => {
    const dialog = document.getElementById('sessions');
    const answer = await R.api('sessions').catch(error => { R.fail(error); return null; });
    if (!answer) return;
    S.sessions = answer.sessions;
    let now = S.run || (S.sessions[0] || {}).run_id;
    let old = (S.sessions.find(session => session.run_id !== now) || { run_id: now }).run_id;
    const pick = (which, value, set) => R.h('input', { type: 'radio', name: which, 'aria-label': `${which} session`, checked: value, onchange: set });
    R.put(dialog, R.h('header', null, R.h('h2', null, 'Sessions'), R.h('span', { class: 'muted' }, answer.database),
      R.h('button', { class: 'plain', 'aria-label': 'Close', onclick: () => dialog.close() }, '✕')),
    R.h('div', { class: 'scroll' }, R.h('table', null,
      R.h('thead', null, R.h('tr', null, ['Session', 'Began', 'Lasted', 'End', 'Connections', 'Failed', 'Sent', 'Alerts', 'old', 'new'].map((name, at) => R.h('th', { scope: 'col', class: at > 3 && at < 8 ? 'right' : null }, name)))),
      R.h('tbody', null, S.sessions.map(session => R.h('tr', { class: session.run_id === S.run ? 'on' : null },
        R.h('th', { scope: 'row' }, R.h('button', { class: 'plain', onclick: () => { dialog.close(); R.setRun(session.run_id); } }, session.name || session.run_id)),
        R.h('td', null, R.moment(R.ms(session.started_at))), R.h('td', null, session.running ? R.duration(Date.now() - R.ms(session.started_at)) : R.duration(session.duration_ms)),
        R.h('td', { class: session.ending }, session.ending), R.h('td', { class: 'right' }, R.count(session.connects)), R.h('td', { class: 'right' }, R.count(session.fails)),
        R.h('td', { class: 'right' }, R.bytes(session.bytes_sent)), R.h('td', { class: 'right' }, session.alerts ? R.count(session.alerts) : ''),
        R.h('td', null, pick('old', session.run_id === old, () => { old = session.run_id; })),
        R.h('td', null, pick('new', session.run_id === now, () => { now = session.run_id; }))))))),
    R.h('p', { class: 'acts' }, R.h('button', { id: 'compare', onclick: () => compare(old, now) }, 'Compare old with new')),
    R.h('div', { id: 'diff' }));
    if (!dialog.open) dialog.showModal();
  };
  const compare = async (old, now) => {
    const box = document.getElementById('diff');
    try {
      const diff = await R.api('diff', { old, new: now, filter: S.filter });
      const list = (title, rows, what) => R.h('section', null, R.h('h3', null, `${title} (${rows.length})`), rows.length
        ? R.h('table', null, R.h('thead', null, R.h('tr', null, [what, 'old', 'new', 'bytes old', 'bytes new'].map((name, at) => R.h('th', { class: at ? 'right' : null }, name)))),
          R.h('tbody', null, rows.slice(0, 100).map(row => R.h('tr', null, R.h('th', { scope: 'row' }, row.name), R.h('td', { class: 'right' }, R.count(row.old)),
            R.h('td', { class: 'right' }, R.count(row.new)), R.h('td', { class: 'right' }, R.bytes(row.old_bytes)), R.h('td', { class: 'right' }, R.bytes(row.new_bytes))))))
        : R.h('p', { class: 'muted' }, 'none'));
      R.put(box, diff.differs ? null : R.h('p', null, 'Nothing differs.'), S.filter ? R.h('p', { class: 'muted' }, `only ${S.filter}`) : null,
        list('New endpoints', diff.new_domains, 'endpoint'), list('Gone endpoints', diff.removed_domains, 'endpoint'), list('Changed endpoints', diff.changed_domains, 'endpoint'),
        list('New programs', diff.new_processes, 'program'), list('Providers', diff.provider_changes, 'provider'));
    } catch (error) { R.put(box, R.h('p', { class: 'error' }, error.message)); }
  };

  /* Sums as tables, for the report. */
  R.tables = () => {
    const report = S.snap.report;
    const table = (title, heads, rows, all) => R.h('section', { class: 'sums' }, R.h('h2', null, title, all > rows.length ? R.h('small', null, ` ${rows.length} of ${R.count(all)}`) : null),
      rows.length ? R.h('table', null, R.h('thead', null, R.h('tr', null, heads.map((name, at) => R.h('th', { class: at ? 'right' : null }, name)))),
        R.h('tbody', null, rows.map(cells => R.h('tr', null, cells.map((cell, at) => R.h(at ? 'td' : 'th', { class: at && at < 5 ? 'right' : null, scope: at ? null : 'row' }, cell)))))) : R.h('p', { class: 'muted' }, 'none'));
    const sums = row => [R.count(row.connects), row.fails ? R.count(row.fails) : '', R.bytes(row.bytes_sent), R.bytes(row.bytes_recv)];
    return [
      table('Providers', ['provider', 'connections', 'failed', 'sent', 'received'], report.providers.map(row => [row.provider, ...sums(row)])),
      table('Top domains', ['domain', 'connections', 'failed', 'sent', 'received', 'class', 'known by'], report.top_domains.map(row => [row.domain, ...sums(row), R.className(row.class || 'unknown'), row.domain_sources.join(', ')]), report.domains),
      table('Top addresses', ['address', 'connections', 'failed', 'sent', 'received', 'name'], report.top_ips.map(row => [row.ip, ...sums(row), row.domain || '']), report.ips),
      R.h('section', { class: 'sums' }, R.h('h2', null, 'Completeness'), R.h('p', null, S.snap.completeness.watched || ''),
        Object.entries(report.completeness.missed).map(([gap, count]) => R.h('p', null, `${R.count(count)} ${(S.snap.findings.find(found => found.gap === gap) || {}).meaning || gap}`)),
        report.completeness.sources.map(source => R.h('p', { class: 'muted' }, `source: ${source.source}${source.reason ? ` (${source.reason})` : ''}`))),
    ];
  };
})();
