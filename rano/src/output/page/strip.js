/* The time strip: what began, or how many bytes passed, by class; a drag zooms in. */
(() => {
  const HEIGHT = 48, FOOT = 16;
  const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];

  const spans = (from, until) => {
    const sessions = S.snap.report.sessions || [];
    /* A recording is older than the session that played it. */
    const isPlayed = session => R.ms(session.ended_at) < R.ms(session.started_at);
    return sessions.map(session => ({
      from: isPlayed(session) ? from : Math.max(from, R.ms(session.started_at)),
      until: isPlayed(session) ? until : Math.min(until, session.running ? until : R.ms(session.ended_at || session.last_event_at || session.started_at)),
      unclean: !session.running && !session.clean_exit, session,
    }));
  };

  let drag = null;
  R.drawStrip = () => {
    const box = document.getElementById('strip');
    const strip = S.timeline;
    if (!box) return;
    if (!strip || !strip.parts) { R.put(box); return; }
    const width = Math.max(280, box.clientWidth);
    const from = R.ms(strip.from), until = from + strip.parts * strip.step_ms;
    const scale = width / (until - from);
    const bar = Math.max(1, strip.step_ms * scale);
    const names = Object.keys(R.CLASSES).filter(name => strip.classes[name]).reverse();
    const stack = new Array(strip.parts).fill(0);
    for (const name of names) for (let at = 0; at < strip.parts; at += 1) stack[at] += strip.classes[name][S.strip][at] || 0;
    const most = Math.max(...stack, 1);
    /* Bytes span decades: their square root keeps small ones in sight. */
    const tall = value => (S.strip === 'bytes' ? Math.sqrt(value / most) : value / most) * (HEIGHT - 6);
    const bases = new Array(strip.parts).fill(0);
    const bars = names.map(name => {
      let d = '';
      for (let at = 0; at < strip.parts; at += 1) {
        const value = strip.classes[name][S.strip][at] || 0;
        if (!value) continue;
        const low = tall(bases[at]);
        bases[at] += value;
        const high = Math.max(tall(bases[at]), low + 1.5);
        d += `M${(at * bar).toFixed(1)} ${(HEIGHT - low).toFixed(1)}V${(HEIGHT - high).toFixed(1)}h${Math.max(1, bar - (bar > 3 ? 1 : 0)).toFixed(1)}V${(HEIGHT - low).toFixed(1)}z`;
      }
      return R.s('path', { class: `bar c-${name}`, d });
    });
    const step = 1000 * (STEPS.find(seconds => seconds * 1000 * scale >= 84) || 1209600);
    const ticks = [];
    for (let at = Math.ceil(from / step) * step; at < until; at += step) {
      const x = (at - from) * scale;
      if (x > width - 36) break;
      const text = step >= 86400000 ? R.day(at).slice(5) : step < 60000 ? R.clock(at) : R.minute(at);
      ticks.push(R.s('line', { class: 'tick', x1: x, x2: x, y1: 0, y2: HEIGHT }), R.s('text', { class: 'tick', x: x + 3, y: HEIGHT + 12 }, text));
    }
    const watched = spans(from, until);
    const seen = watched.filter(span => span.until > span.from);
    const veil = [];
    let edge = from;
    for (const span of [...seen].sort((a, b) => a.from - b.from)) {
      if (span.from > edge + strip.step_ms) veil.push([edge, span.from]);
      edge = Math.max(edge, span.until);
    }
    if (until > edge + strip.step_ms) veil.push([edge, until]);
    const x = ms => Math.max(0, Math.min(width, (ms - from) * scale));
    const svg = R.s('svg', {
      width, height: HEIGHT + FOOT, viewBox: `0 0 ${width} ${HEIGHT + FOOT}`, role: 'img', tabindex: 0,
      'aria-label': `${S.strip === 'bytes' ? 'Bytes' : 'Connections'} from ${R.moment(from)} to ${R.moment(until)} UTC. Arrow keys pick a time, Shift with arrows a span, Enter zooms, Escape goes back.`,
    },
    R.s('rect', { class: 'ground', width, height: HEIGHT }), ticks, bars,
    veil.map(([a, b]) => R.s('rect', { class: 'unwatched', x: x(a), width: Math.max(0, x(b) - x(a)), height: HEIGHT }, R.s('title', null, 'not watched'))),
    watched.filter(span => span.unclean).map(span => R.s('g', { class: 'unclean' },
      R.s('line', { x1: x(span.until), x2: x(span.until), y1: 0, y2: HEIGHT }),
      R.s('text', { x: Math.min(x(span.until) + 4, width - 74), y: 11 }, 'unclean end'),
      R.s('title', null, `rano was killed here, or the machine stopped: ${R.moment(span.until)}`))),
    R.s('rect', { class: 'pick', height: HEIGHT, width: 0, x: 0 }),
    R.s('text', { class: 'hint', x: width - 4, y: 11, 'text-anchor': 'end' }));
    R.put(box, svg);
    interact(svg, { from, until, scale, width, strip, stack });
  };

  const interact = (svg, { from, until, scale, width, strip, stack }) => {
    const pick = svg.querySelector('.pick'), hint = svg.querySelector('.hint');
    const timeAt = event => from + Math.max(0, Math.min(width, event.clientX - svg.getBoundingClientRect().left)) / scale;
    const show = (a, b) => {
      const [low, high] = a < b ? [a, b] : [b, a];
      pick.setAttribute('x', (low - from) * scale);
      pick.setAttribute('width', Math.max(1, (high - low) * scale));
      const part = Math.floor((b - from) / strip.step_ms);
      const value = stack[part] || 0;
      hint.textContent = high - low > strip.step_ms ? `${R.clock(low)} – ${R.clock(high)}`
        : `${R.moment(from + part * strip.step_ms)}  ${S.strip === 'bytes' ? R.bytes(value) : `${R.count(value)} began`}`;
    };
    const zoom = (a, b) => {
      const [low, high] = a < b ? [a, b] : [b, a];
      if (high - low >= Math.min(1000, strip.step_ms)) R.setRange(Math.floor(low), Math.ceil(high));
    };
    svg.addEventListener('pointerdown', event => {
      drag = timeAt(event);
      svg.setPointerCapture(event.pointerId);
    });
    svg.addEventListener('pointermove', event => show(drag == null ? timeAt(event) : drag, timeAt(event)));
    svg.addEventListener('pointerup', event => {
      const [a, b] = [drag, timeAt(event)];
      drag = null;
      if (a != null && Math.abs(b - a) * scale > 4) zoom(a, b);
    });
    svg.addEventListener('pointercancel', () => { drag = null; });
    svg.addEventListener('pointerleave', () => { if (drag == null) { pick.setAttribute('width', 0); hint.textContent = ''; } });
    let cursor = from + (until - from) / 2, anchor = cursor;
    svg.addEventListener('keydown', event => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) {
        cursor = Math.max(from, Math.min(until - 1, cursor + by * Math.max(strip.step_ms, (until - from) / 60)));
        if (!event.shiftKey) anchor = cursor;
        show(anchor, cursor);
        event.preventDefault();
      } else if (event.key === 'Enter') zoom(anchor, cursor);
    });
  };
  R.isDragging = () => drag != null;
})();
