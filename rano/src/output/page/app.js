/* Putting it together. */
(() => {
  const TOKEN = 'rano-token';
  const memory = {
    get: name => { try { return sessionStorage.getItem(name); } catch { return null; } },
    set: (name, value) => { try { sessionStorage.setItem(name, value); } catch { /* a private window */ } },
  };

  const build = () => {
    const toggle = (id, label, on, set) => R.h('button', { id, class: 'toggle', 'aria-pressed': String(on()), onclick: event => { set(); event.currentTarget.setAttribute('aria-pressed', String(on())); } }, label);
    const pair = (name, choices, get, set) => R.h('span', { class: 'pair', role: 'group', 'aria-label': name }, choices.map(([value, label]) => R.h('button', {
      'aria-pressed': String(get() === value), onclick: event => {
        set(value);
        for (const other of event.currentTarget.parentNode.children) other.setAttribute('aria-pressed', String(other === event.currentTarget));
      },
    }, label)));
    R.put(document.getElementById('app'),
      R.h('header', { id: 'top' }, R.h('h1', null, 'rano'),
        S.report ? R.h('span', { id: 'session' }) : R.h('button', { id: 'session', 'aria-label': 'Sessions', onclick: () => R.openSessions() }),
        R.h('div', { id: 'numbers' }), R.h('span', { id: 'complete' }),
        S.report ? null : R.h('button', { id: 'live', title: 'Space: pause', onclick: () => pause() }),
        R.h('button', { id: 'theme', class: 'plain', 'aria-label': 'Dark or light', onclick: () => theme() }, '◐')),
      S.report ? R.h('section', { id: 'verdict' }) : null,
      R.h('section', { id: 'findings', 'aria-label': 'Look at these' }),
      R.h('form', { id: 'ask', role: 'search', onsubmit: event => { event.preventDefault(); R.setFilter(document.getElementById('filter').value.trim()); } },
        R.h('input', { id: 'filter', type: 'search', placeholder: S.report ? 'Search the connections below' : 'Filter: type:unknown  process:curl  domain:*.example.com  sent:>1M   ( / )', 'aria-label': 'Filter', autocomplete: 'off', spellcheck: 'false', autocapitalize: 'off', oninput: typed }),
        R.h('span', { id: 'wrong', role: 'alert' }), R.h('button', { id: 'unzoom', type: 'button', hidden: true, onclick: () => R.setRange(null, null) }, 'whole time')),
      R.h('section', { class: 'panel' }, R.h('div', { class: 'bar' }, R.h('h2', null, 'Time'), pair('What the bars count', [['connects', 'connections'], ['bytes', 'bytes']], () => S.strip, value => { S.strip = value; R.drawStrip(); }), R.h('span', { class: 'muted utc' }, 'UTC · drag to zoom')),
        R.h('div', { id: 'strip' })),
      R.h('section', { class: 'panel' }, R.h('div', { class: 'bar' }, R.h('h2', null, 'Map'), pair('Width of the lines', [['bytes', 'bytes'], ['connections', 'connections']], () => S.weight, value => { S.weight = value; R.drawMap(); }),
        toggle('network', 'network', () => S.network, () => { S.network = !S.network; R.drawMap(); }), R.h('span', { id: 'map-note', class: 'muted' })),
      R.h('div', { id: 'map' })),
      R.h('section', { class: 'panel grow' }, R.h('div', { class: 'bar' }, R.h('h2', null, 'Connections'), R.h('span', { id: 'rows-note', class: 'muted' })), R.buildList()),
      S.report ? R.h('div', { id: 'tables' }) : null,
      R.h('dialog', { id: 'drawer' }), R.h('dialog', { id: 'sessions', 'aria-label': 'Sessions' }),
      R.h('dialog', { id: 'help', 'aria-label': 'Help' }),
      R.h('p', { id: 'said', role: 'status', 'aria-live': 'polite' }));
  };

  const theme = () => {
    const root = document.documentElement;
    const isDark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
    root.dataset.theme = isDark ? 'light' : 'dark';
    memory.set('rano-theme', root.dataset.theme);
  };
  const pause = () => {
    S.paused = !S.paused;
    R.drawLive();
    if (!S.paused) drawAll();
  };
  const typed = R.debounce(350, () => {
    const text = document.getElementById('filter').value.trim();
    if (S.report) R.searchRows(text); else if (text !== S.filter) R.setFilter(text, true);
  });

  const drawAll = () => {
    R.drawHead();
    R.drawFindings();
    R.drawStrip();
    R.drawMap();
    R.drawList();
    const note = document.getElementById('map-note');
    const graph = S.snap && S.snap.graph;
    R.put(note, graph && graph.all > graph.paths.length ? `the ${graph.paths.length} with most traffic of ${R.count(graph.all)}` : '');
    document.getElementById('unzoom').hidden = S.since == null;
  };
  const drawMapSoon = R.throttle(400, () => R.drawMap());
  const drawStripSoon = R.throttle(400, () => { if (!R.isDragging()) R.drawStrip(); });
  const drawListSoon = R.throttle(60, () => R.drawList());
  R.drawHeadSoon = R.throttle(150, () => { if (!S.paused) R.drawHead(); });
  R.changed = () => {
    if (S.paused) return;
    drawListSoon();
    drawMapSoon();
    drawStripSoon();
  };

  R.fail = error => {
    if (error.code === 401) { R.locked(error); return; }
    R.put(document.getElementById('said'), error.message);
    setTimeout(() => { const said = document.getElementById('said'); if (said && said.textContent === error.message) R.put(said); }, 6000);
  };
  R.locked = error => {
    R.stopStream();
    R.put(document.getElementById('app'), R.h('div', { class: 'boot' }, R.h('h1', null, 'rano'), R.h('p', null, S.token ? error.message : 'Open the address that rano printed: it ends with a token, and without it nobody gets an answer.')));
  };

  let turn = 0;
  /* Everything anew, for what is asked. */
  const load = async quiet => {
    const mine = turn += 1;
    const asked = R.asked();
    try {
      const [snap, list] = await Promise.all([R.api('snapshot', asked), R.api('connections', { ...asked, limit: 2000 })]);
      if (mine !== turn) return;
      S.recent = [];
      R.takeSnapshot(snap);
      R.takeConnections(list);
      S.skew = R.ms(snap.now) - Date.now();
      S.good = S.filter;
      R.put(document.getElementById('wrong'));
      document.getElementById('filter').removeAttribute('aria-invalid');
      drawAll();
      R.startStream();
    } catch (error) {
      if (mine !== turn) return;
      if (error.code === 400 && S.filter) {
        S.filter = S.good || '';
        R.put(document.getElementById('wrong'), error.message);
        document.getElementById('filter').setAttribute('aria-invalid', 'true');
      } else if (!quiet) { R.fail(error); if (error.code === 404) waitForSession(); }
      if (!S.snap && error.code === 0) setTimeout(() => load(quiet), 1000);
    }
  };
  const waitForSession = () => setTimeout(() => { if (!S.snap) load(true); }, 1000);
  /* Sums and findings anew; the list stays unless it has holes. */
  R.refresh = async anew => {
    if (anew) { await load(true); return; }
    const mine = turn;
    try {
      const snap = await R.api('snapshot', R.asked());
      if (mine !== turn) return;
      R.takeSnapshot(snap);
      if (!S.paused) { R.drawHead(); R.drawFindings(); R.drawMap(); if (!R.isDragging()) R.drawStrip(); }
    } catch (error) { if (error.code === 401) R.locked(error); }
  };
  R.refreshSoon = R.throttle(1500, () => R.refresh());
  R.refreshBusy = R.throttle(5000, () => R.refresh());
  R.refreshLater = R.throttle(6000, () => R.refresh());
  R.loadOlder = async () => {
    try {
      R.takeConnections(await R.api('connections', { ...R.asked(), before: S.older, limit: 5000 }), true);
      R.drawList();
    } catch (error) { R.fail(error); }
  };

  R.setFilter = (text, isTyped) => {
    S.filter = text;
    if (!isTyped) document.getElementById('filter').value = text;
    remember();
    load();
  };
  R.setRange = (since, until) => {
    [S.since, S.until] = [since, until];
    if (S.report) { document.getElementById('unzoom').hidden = since == null; R.drawList(); R.put(document.getElementById('said'), since == null ? '' : `${R.moment(since)} – ${R.moment(until)}`); return; }
    load();
  };
  R.setRun = run => {
    Object.assign(S, { run, since: null, until: null, chosen: null });
    remember();
    load();
  };
  const remember = () => {
    const query = new URLSearchParams();
    if (S.run) query.set('run', S.run);
    if (S.filter) query.set('filter', S.filter);
    history.replaceState(null, '', query.toString() ? `#${query}` : location.pathname);
  };

  const help = () => {
    const dialog = document.getElementById('help');
    R.put(dialog, R.h('header', null, R.h('h2', null, 'Keys'), R.h('button', { class: 'plain', 'aria-label': 'Close', onclick: () => dialog.close() }, '✕')),
      R.h('dl', null, [['/', 'filter'], ['Space', 'pause what is shown, and go on'], ['↑ ↓, j k', 'choose a connection'], ['Enter', 'its details; in the map: only this'], ['s', 'sessions, and compare two'], ['w', 'the whole time again'], ['Esc', 'close, or clear the filter'], ['?', 'this']]
        .map(([key, what]) => [R.h('dt', null, R.h('kbd', null, key)), R.h('dd', null, what)])),
      R.h('p', { class: 'muted' }, '~ before a name: a guess, from a reverse look-up or another process’s question.'));
    dialog.showModal();
  };
  const keys = event => {
    const at = event.target;
    const isTyping = at.matches && at.matches('input, textarea');
    if (event.key === 'Escape') {
      const drawer = document.getElementById('drawer');
      if (drawer && drawer.open) drawer.close();
      else if (isTyping && at.id === 'filter') { at.value = ''; if (S.report) R.searchRows(''); else if (S.filter) R.setFilter(''); at.blur(); }
      else if (S.since != null) R.setRange(null, null);
      else if (S.filter) R.setFilter('');
      return;
    }
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === '/') { event.preventDefault(); document.getElementById('filter').focus(); }
    else if (event.key === ' ' && at === document.body && !S.report) { event.preventDefault(); pause(); }
    else if (event.key === 's' && !S.report) R.openSessions();
    else if (event.key === 'w') R.setRange(null, null);
    else if (event.key === '?') help();
    else if ((event.key === 'j' || event.key === 'k') && at.id !== 'rows') document.getElementById('rows').focus();
  };

  const start = () => {
    const chosen = memory.get('rano-theme');
    if (chosen) document.documentElement.dataset.theme = chosen;
    const inlined = document.getElementById('data');
    if (inlined) S.report = JSON.parse(inlined.textContent);
    else {
      /* The token leaves the address bar, and the history, at once. */
      const asked = new URLSearchParams(location.hash.slice(1));
      S.token = asked.get('token') || memory.get(TOKEN) || '';
      if (asked.get('token')) memory.set(TOKEN, S.token);
      [S.run, S.filter] = [asked.get('run') || '', asked.get('filter') || ''];
      remember();
      if (!S.token) { R.locked(new Error('')); return; }
    }
    build();
    document.addEventListener('keydown', keys);
    new ResizeObserver(R.debounce(60, () => { if (S.snap) { R.drawMap(); R.drawStrip(); } })).observe(document.getElementById('map'));
    let width = innerWidth;
    addEventListener('resize', R.debounce(120, () => { if (S.snap) { if (innerWidth !== width) { R.drawMap(); R.drawStrip(); R.drawFindings(); width = innerWidth; } R.drawList(); } }));
    if (S.report) {
      R.takeSnapshot(S.report.snapshot);
      R.takeConnections(S.report.connections);
      S.live = 'off';
      R.put(document.getElementById('verdict'), R.h('p', { class: 'verdict' }, S.report.verdict), R.h('p', { class: 'muted' }, S.report.about));
      R.put(document.getElementById('tables'), R.tables(), R.h('p', { class: 'muted hash' }, S.report.hash || ''));
      drawAll();
      addEventListener('beforeprint', () => R.drawAllRows());
      return;
    }
    document.getElementById('filter').value = S.filter;
    load();
  };
  start();
})();
