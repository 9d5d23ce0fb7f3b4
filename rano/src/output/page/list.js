/* The connections: only the rows in sight are there. A row is chosen by what it is, not by where it stands. */
(() => {
  const COLUMNS = [
    { key: 'at', name: 'Time', value: row => row.at, text: row => R.clock(row.at) },
    { key: 'standing', name: 'State', value: row => row.standing, text: row => row.error || row.state || row.standing },
    { key: 'provider', name: 'Agent', value: row => row.agent || row.provider },
    { key: 'comm', name: 'Program', value: row => row.program || row.comm, text: row => `${row.program || row.comm}${row.pid ? ` ${row.pid}` : ''}` },
    { key: 'remote', name: 'Endpoint', value: row => R.label(row) },
    { key: 'class', name: 'Class', value: row => R.classOrder(row.endpoint_type), text: row => R.className(row.endpoint_type || 'unknown') },
    { key: 'proto', name: 'Protocol', value: row => row.proto },
    { key: 'sent', name: 'Sent', value: row => row.bytes_sent ?? -1, text: row => R.bytes(row.bytes_sent), right: true },
    { key: 'recv', name: 'Received', value: row => row.bytes_recv ?? -1, text: row => R.bytes(row.bytes_recv), right: true },
    { key: 'took', name: 'Open for', value: row => took(row) ?? -1, text: row => R.duration(took(row)), right: true },
  ];
  const took = row => row.duration_ms ?? (row.standing === 'open' && S.live === 'live' ? Math.max(0, Date.now() + (S.skew || 0) - row.at) : null);

  let rows = [], shown = '', search = '';
  const narrow = () => matchMedia('(max-width: 640px)').matches;
  const rowHeight = () => (narrow() ? 46 : 26);

  const sorted = () => {
    const column = COLUMNS.find(one => one.key === S.sort.key) || COLUMNS[0];
    const way = S.sort.down ? -1 : 1;
    let list = [...S.rows.values()];
    if (S.report) {
      const text = search.toLowerCase();
      if (text) list = list.filter(row => JSON.stringify(row).toLowerCase().includes(text));
      if (S.since != null) list = list.filter(row => row.at >= S.since && row.at < S.until);
    }
    const keyed = list.map(row => [column.value(row), row]);
    keyed.sort(([a, one], [b, other]) => (a < b ? -way : a > b ? way : other.at - one.at || (one.key < other.key ? -1 : 1)));
    return keyed.map(([, row]) => row);
  };
  R.searchRows = text => { search = text; R.drawList(); };

  R.buildList = () => {
    const head = R.h('div', { class: 'row head', role: 'row' }, COLUMNS.map(column => R.h('button', {
      class: `cell k-${column.key}${column.right ? ' right' : ''}`, role: 'columnheader', data: { key: column.key },
      onclick: () => {
        S.sort = { key: column.key, down: S.sort.key === column.key ? !S.sort.down : true };
        R.drawList();
      },
    }, column.name)));
    const body = R.h('div', { id: 'rows', tabindex: 0, role: 'rowgroup', 'aria-label': 'Connections', onscroll: () => draw(), onkeydown: keys },
      R.h('div', { class: 'tall' }));
    return R.h('div', { id: 'list', role: 'table', 'aria-label': 'Connections' }, head, body);
  };

  const keys = event => {
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 }[event.key];
    if (step && rows.length && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      const now = rows.findIndex(row => row.key === S.chosen);
      const next = Math.max(0, Math.min(rows.length - 1, (now < 0 ? (step > 0 ? -1 : 0) : now) + step));
      S.chosen = rows[next].key;
      const body = event.currentTarget, height = rowHeight();
      if (next * height < body.scrollTop) body.scrollTop = next * height;
      if ((next + 1) * height > body.scrollTop + body.clientHeight) body.scrollTop = (next + 1) * height - body.clientHeight;
      if (document.getElementById('drawer').open) R.openDrawer(rows[next]);
      draw();
    } else if (event.key === 'Enter') {
      /* Else it would press the button that the drawer gives the focus to. */
      event.preventDefault();
      const row = rows.find(one => one.key === S.chosen);
      if (row) R.openDrawer(row);
    }
  };

  R.drawList = () => {
    const body = document.getElementById('rows');
    if (!body) return;
    const before = rows[Math.floor(body.scrollTop / rowHeight())];
    rows = sorted();
    /* What stands under the eye stays there. */
    if (body.scrollTop > 4 && before) {
      const now = rows.indexOf(before);
      if (now >= 0) {
        const into = body.scrollTop % rowHeight();
        body.firstChild.style.setProperty('height', `${rows.length * rowHeight()}px`);
        body.scrollTop = now * rowHeight() + into;
      }
    }
    shown = '';
    for (const button of document.querySelectorAll('#list .head button')) {
      const isOn = button.dataset.key === S.sort.key;
      button.setAttribute('aria-sort', isOn ? (S.sort.down ? 'descending' : 'ascending') : 'none');
    }
    const note = document.getElementById('rows-note');
    if (note) {
      R.put(note, `${R.count(rows.length)} connections`, S.older && !S.report ? [' · ', R.h('button', { class: 'plain', onclick: () => R.loadOlder() }, 'load older')] : null,
        S.report && S.report.more ? ` · the latest and every finding of ${R.count(S.report.more)}` : null);
    }
    draw();
  };

  const draw = all => {
    const body = document.getElementById('rows');
    const height = rowHeight();
    const first = all === true ? 0 : Math.max(0, Math.floor(body.scrollTop / height) - 4);
    const count = all === true ? 300 : Math.ceil(body.clientHeight / height) + 8;
    const slice = rows.slice(first, first + count);
    const tall = body.firstChild;
    tall.style.setProperty('height', `${rows.length * height}px`);
    const stamp = `${first} ${S.chosen} ${slice.map(row => row.key + row.standing + row.domain).join()}`;
    if (stamp === shown && all !== true && S.live !== 'live') return;
    shown = stamp;
    if (!rows.length) { R.put(tall, R.h('p', { class: 'empty' }, S.filter ? 'No connection matches.' : 'No connections yet.')); return; }
    R.put(tall, slice.map((row, at) => line(row, first + at, height)));
  };
  R.drawAllRows = () => draw(true);

  const line = (row, at, height) => {
    const classes = ['row', `s-${row.standing}`, `c-${R.classOf(row.endpoint_type || 'unknown')}`];
    if (row.alert) classes.push('alert');
    if (row.key === S.chosen) classes.push('on');
    if (row.fresh) { classes.push('fresh'); setTimeout(() => { row.fresh = false; }, 900); }
    return R.h('div', {
      class: classes.join(' '), role: 'row', css: { transform: `translateY(${at * height}px)` }, 'aria-rowindex': at + 1, data: { id: row.first || row.id },
      onclick: () => { S.chosen = row.key; R.openDrawer(row); draw(); },
    }, COLUMNS.map(column => {
      const text = column.text ? column.text(row) : column.value(row);
      return R.h('span', { class: `cell k-${column.key}${column.right ? ' right' : ''}`, role: 'cell', title: column.key === 'remote' || column.key === 'comm' ? text : null },
        column.key === 'standing' ? [R.h('i', { class: 'dot' }), text] : column.key === 'class' ? [R.h('i', { class: 'chip' }), text] : text);
    }));
  };
})();
