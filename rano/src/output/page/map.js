/* The map: agent → tool call → program → endpoint by class. Columns, not a hair ball. */
(() => {
  const ROW = 20, GAP = 3, HEAD = 18, ROWS = 13;

  const columns = paths => {
    const list = [
      { name: 'Agent', of: path => path.agent || path.provider, term: path => (path.agent ? `agent:${R.quote(path.agent)}` : `provider:${R.quote(path.provider)}`) },
      { name: 'Tool call', of: path => path.tool || 'the agent itself', term: path => path.tool && `tool:${R.quote(path.tool)}` },
      { name: 'Program', of: path => path.program || path.process, term: path => `process:${R.quote(path.process)}` },
      { name: 'Endpoint', of: path => path.endpoint, term: R.endpointTerm },
    ];
    return list.filter(column => column.name !== 'Tool call' || paths.some(path => path.tool));
  };
  const weigh = path => (S.weight === 'bytes'
    ? (path.bytes_sent || 0) + (path.bytes_recv || 0) + 40 * (path.connects + path.fails)
    : path.connects + path.fails + (path.accepts || 0) + (path.listens || 0));

  /* The heaviest have a place of their own, in each class some; the rest is summed up. */
  const nodes = (paths, column, isEndpoint, most) => {
    const found = new Map();
    for (const path of paths) {
      const group = isEndpoint ? R.classOf(path.class) : '';
      const name = column.of(path);
      const key = `${group}\n${name}`;
      let node = found.get(key);
      if (!node) {
        node = { key, name, group, weight: 0, connects: 0, fails: 0, sent: 0, received: 0, open: 0, path, isNew: false };
        found.set(key, node);
      }
      node.weight += weigh(path);
      node.connects += path.connects;
      node.fails += path.fails;
      node.open += Math.max(0, path.connects - path.closes);
      node.sent += path.bytes_sent || 0;
      node.received += path.bytes_recv || 0;
      node.isNew = node.isNew || path.isNew;
    }
    const all = [...found.values()].sort((a, b) => b.weight - a.weight || (a.name < b.name ? -1 : 1));
    /* Some of each class, unknown ones first; then the heaviest, as far as there is room. */
    const sure = node => (node.group === 'unknown' ? 3 : !node.group || R.classOrder(node.group) > 4 ? 1 : 2);
    const kept = new Map(), rest = new Map(), each = new Map();
    for (const node of all) {
      const inGroup = each.get(node.group) || 0;
      each.set(node.group, inGroup + 1);
      if (inGroup < sure(node)) kept.set(node.key, node);
    }
    const room = Math.max(most, kept.size + 1) - (isEndpoint ? each.size / 2 : 1);
    for (const node of all) if (kept.size < room || all.length <= most) kept.set(node.key, node);
    for (const node of all) {
      if (kept.has(node.key)) continue;
      const left = each.get(node.group) - [...kept.values()].filter(one => one.group === node.group).length;
      if (left === 1) { kept.set(node.key, node); continue; }
      const more = rest.get(node.group) || { key: `${node.group}\n…`, group: node.group, isRest: true, count: 0, weight: 0, connects: 0, fails: 0, sent: 0, received: 0, open: 0 };
      for (const sum of ['weight', 'connects', 'fails', 'sent', 'received', 'open']) more[sum] += node[sum];
      more.count += 1;
      more.name = `+ ${more.count} more`;
      rest.set(node.group, more);
    }
    const place = node => (kept.has(node.key) ? kept.get(node.key) : rest.get(node.group));
    const list = [...kept.values(), ...rest.values()];
    list.sort((a, b) => R.classOrder(a.group) - R.classOrder(b.group) || Boolean(a.isRest) - Boolean(b.isRest) || b.weight - a.weight);
    return { list, find: key => place(found.get(key)) };
  };

  const about = node => [
    `${R.count(node.connects)} connections` + (node.fails ? `, ${R.count(node.fails)} failed` : ''),
    node.open ? `${R.count(node.open)} open` : '', `${R.bytes(node.sent)} sent`, `${R.bytes(node.received)} received`,
  ].filter(Boolean).join(' · ');

  const shorten = (text, width, isLine) => {
    const most = Math.max(3, Math.floor(width / 6.7));
    text = R.clean(text);
    /* Of a short one the beginning says most, but for names of endpoints. */
    if (isLine && most < 16 && text.length > most) return `${text.slice(0, most - 1)}…`;
    return text.length <= most ? text : `${text.slice(0, Math.ceil(most / 2) - 1)}…${text.slice(-Math.floor(most / 2))}`;
  };

  /* Each stands as near as there is room to the middle of what it leads to: fewer lines cross. */
  const settle = (drawn, links, height) => {
    for (let at = drawn.length - 2; at >= 0; at -= 1) {
      const wanted = new Map();
      for (const link of links.values()) {
        if (link.left !== drawn[at]) continue;
        const sum = wanted.get(link.from) || [0, 0];
        const pull = Math.sqrt(link.weight + 1);
        wanted.set(link.from, [sum[0] + link.to.y * pull, sum[1] + pull]);
      }
      const list = drawn[at].list;
      for (const node of list) { const [sum, pull] = wanted.get(node) || [HEAD, 1]; node.y = sum / pull; }
      list.sort((a, b) => a.y - b.y);
      let floor = HEAD + 6;
      for (const node of list) { node.y = Math.max(node.y, floor); floor = node.y + ROW + GAP; }
      let roof = Math.max(height, floor) - GAP;
      for (const node of [...list].reverse()) { node.y = Math.min(node.y, roof - ROW); roof = node.y - GAP; }
    }
  };

  let hovered = null;
  R.drawMap = () => {
    const box = document.getElementById('map');
    if (!box) return;
    const width = Math.max(320, box.clientWidth);
    const paths = [...S.paths.values()].filter(path => path.connects + path.fails + (path.accepts || 0) + (path.listens || 0) + path.closes > 0);
    if (!paths.length) {
      R.put(box, R.h('p', { class: 'empty' }, S.filter ? 'Nothing matches this filter.' : 'No connections yet.'));
      return;
    }
    const layers = columns(paths);
    const isNarrow = width < 640;
    /* As many as leave room for the list below. */
    const most = isNarrow ? ROWS + 4 : Math.max(9, Math.min(26, Math.floor((innerHeight - 470) / (ROW + GAP))));
    const share = layers.length === 4 ? [0.13, 0.2, 0.13, 0.27] : [0.15, 0.17, 0.36];
    if (isNarrow) share.splice(0, 9, ...(layers.length === 4 ? [0.18, 0.2, 0.18, 0.3] : [0.24, 0.22, 0.38]));
    const gap = (width - width * share.reduce((a, b) => a + b, 0)) / (layers.length - 1);
    let x = 0;
    const drawn = layers.map((column, index) => {
      const isEndpoint = index === layers.length - 1;
      const layer = { ...column, ...nodes(paths, column, isEndpoint, most), x, width: width * share[index], isEndpoint };
      x += layer.width + gap;
      return layer;
    });
    const heights = drawn.map(layer => {
      let y = HEAD + 6, group = '';
      for (const node of layer.list) {
        if (layer.isEndpoint && node.group !== group) { y += y > HEAD + 6 ? 6 : 0; node.head = y; y += isNarrow ? 14 : 0; group = node.group; }
        node.y = y;
        y += ROW + GAP;
      }
      return y;
    });
    const height = Math.max(...heights);
    const links = new Map();
    for (const path of paths) {
      for (let at = 0; at + 1 < drawn.length; at += 1) {
        const [left, right] = [drawn[at], drawn[at + 1]];
        const from = left.find(`\n${left.of(path)}`);
        const to = right.find(`${right.isEndpoint ? R.classOf(path.class) : ''}\n${right.of(path)}`);
        if (!from || !to) continue;
        const key = `${at}\n${from.key}\n${to.key}\n${R.classOf(path.class)}`;
        const link = links.get(key) || { from, to, left, right, class: R.classOf(path.class), weight: 0, connects: 0, fails: 0, keys: new Set() };
        link.weight += weigh(path);
        link.connects += path.connects;
        link.fails += path.fails;
        links.set(key, link);
      }
    }
    settle(drawn, links, height);
    const heaviest = Math.max(...[...links.values()].map(link => link.weight), 1);
    const thick = weight => 1.2 + 10.8 * Math.log1p(weight) / Math.log1p(heaviest) * Math.sqrt(weight / heaviest + 0.05);
    const outs = new Map(), ins = new Map();
    const lines = [...links.values()].filter(link => S.network || !link.right.isEndpoint).sort((a, b) => R.classOrder(a.class) - R.classOrder(b.class) || a.to.y - b.to.y);
    const offset = (table, node, size) => { const at = table.get(node) || 0; table.set(node, at + size); return at; };
    const total = new Map();
    for (const link of lines) {
      link.size = thick(link.weight);
      total.set(`o${link.from.key}${link.left.name}`, (total.get(`o${link.from.key}${link.left.name}`) || 0) + link.size);
      total.set(`i${link.to.key}${link.right.name}`, (total.get(`i${link.to.key}${link.right.name}`) || 0) + link.size);
    }
    const port = (table, node, sum, size) => {
      const squeeze = Math.min(1, (ROW - 4) / sum);
      const at = offset(table, node, size * squeeze);
      return node.y + ROW / 2 - sum * squeeze / 2 + at + size * squeeze / 2;
    };
    const curves = lines.map(link => {
      const y1 = port(outs, link.from, total.get(`o${link.from.key}${link.left.name}`), link.size);
      const y2 = port(ins, link.to, total.get(`i${link.to.key}${link.right.name}`), link.size);
      const x1 = link.left.x + link.left.width, x2 = link.right.x, middle = (x1 + x2) / 2;
      return R.s('path', {
        class: `link c-${link.class}${link.connects ? '' : ' failed'}`, d: `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`,
        'stroke-width': link.size.toFixed(1), data: { a: `${link.left.name}\n${link.from.key}`, b: `${link.right.name}\n${link.to.key}` },
      }, R.s('title', null, `${link.from.name} → ${link.to.name}: ${R.count(link.connects)} connections${link.fails ? `, ${R.count(link.fails)} failed` : ''}`));
    });
    const boxes = drawn.flatMap(layer => [
      R.s('text', { class: 'column', x: layer.x + 2, y: 12 }, layer.name),
      layer.list.map(node => {
        const term = node.isRest ? (layer.isEndpoint ? `type:${node.group}` : null) : layer.term(node.path);
        const isOn = term && R.hasTerm(term);
        const act = () => term && R.toggleTerm(term);
        const open = node.open && layer.width > 110 ? R.count(node.open) : '';
        const hidden = layer.isEndpoint && !S.network;
        return [
          R.s('g', {
            class: `node${layer.isEndpoint ? ` c-${node.group}` : ''}${isOn ? ' on' : ''}${node.isNew ? ' new' : ''}${hidden ? ' dim' : ''}`,
            transform: `translate(${layer.x} ${node.y})`, tabindex: term ? 0 : null, role: 'button', 'aria-pressed': String(Boolean(isOn)),
            'aria-label': `${layer.name} ${node.name}: ${about(node)}`, onclick: act, data: { id: `${layer.name}\n${node.key}` },
            onkeydown: event => { if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); act(); } },
            onpointerenter: () => light(`${layer.name}\n${node.key}`), onpointerleave: () => light(null),
          },
          R.s('rect', { width: layer.width, height: ROW, rx: 4 }),
          R.s('text', { x: 8, y: 14 }, shorten(node.isRest ? node.name : (layer.isEndpoint && node.path.domain_source === 'ptr' ? '~' : '') + node.name, layer.width - 14 - (open ? 24 : 0) - (node.head != null && !isNarrow ? 90 : 0), !layer.isEndpoint)),
          open ? R.s('text', { class: 'open', x: layer.width - 7, y: 14 }, open) : null,
          R.s('title', null, `${node.name}\n${about(node)}${open ? '\nthe number: open now' : ''}`)),
          node.head == null ? null : R.s('text', {
            class: `group c-${node.group}`, x: isNarrow ? layer.x + 2 : layer.x + layer.width - (open ? 26 : 7), y: node.head + (isNarrow ? 9 : 14),
            'text-anchor': isNarrow ? 'start' : 'end', role: 'button', tabindex: 0, 'aria-pressed': String(R.hasTerm(`type:${node.group}`)),
            'aria-label': `only ${R.className(node.group)}`, onclick: () => R.toggleTerm(`type:${node.group}`),
            onkeydown: event => { if (event.key === 'Enter') R.toggleTerm(`type:${node.group}`); },
          }, R.className(node.group)),
        ];
      }),
    ]);
    const focus = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.id : null;
    R.put(box, R.s('svg', { width, height, viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': 'Who talked to what' },
      R.s('g', { class: 'links' }, curves), boxes));
    if (focus) for (const node of box.querySelectorAll('[data-id]')) if (node.dataset.id === focus) node.focus();
    if (hovered) light(hovered);
  };

  /* What a node has to do with stands out. */
  const light = id => {
    hovered = id;
    const box = document.getElementById('map');
    const touched = new Set(id ? [id] : []);
    const all = [...box.querySelectorAll('.link')];
    let found = all.filter(link => id && (link.dataset.a === id || link.dataset.b === id));
    const walk = (from, to) => {
      let edge = new Set([id]);
      for (let step = 0; step < 3; step += 1) {
        const next = all.filter(link => edge.has(link.dataset[from]));
        next.forEach(link => { touched.add(link.dataset[to]); found.push(link); });
        edge = new Set(next.map(link => link.dataset[to]));
      }
    };
    if (id) { walk('a', 'b'); walk('b', 'a'); }
    found = new Set(found);
    box.classList.toggle('lit', Boolean(id));
    for (const link of all) link.classList.toggle('hot', found.has(link));
    for (const node of box.querySelectorAll('.node')) node.classList.toggle('hot', touched.has(node.dataset.id));
  };
})();
