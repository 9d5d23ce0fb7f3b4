/* The stream: read by fetch, which sends the token in a header. It goes on from the last event that was seen. */
(() => {
  let ending = null, attempt = 0, seen = '';

  R.stopStream = () => { if (ending) ending.abort(); ending = null; };
  R.startStream = async () => {
    R.stopStream();
    if (S.report) return;
    if (S.until != null) { S.live = 'zoomed'; R.drawLive(); return; }
    const mine = ending = new AbortController();
    seen = String(Math.min(S.summed, S.listed));
    attempt = 0;
    while (!mine.signal.aborted) {
      S.live = attempt ? 'lost' : 'connecting';
      R.drawLive();
      try {
        await read(mine.signal);
        attempt = Math.min(attempt, 1);
      } catch (error) {
        if (mine.signal.aborted) return;
        if (error.code === 401) { R.locked(error); return; }
        if (error.code === 404 || error.code === 400) { S.live = 'off'; R.drawLive(); R.fail(error); return; }
      }
      attempt += 1;
      if (mine.signal.aborted) return;
      S.live = 'lost';
      R.drawLive();
      await new Promise(done => setTimeout(done, Math.min(5000, 250 * 2 ** Math.min(attempt, 6))));
    }
  };

  const read = async signal => {
    const query = new URLSearchParams();
    for (const name of ['run', 'filter']) if (S[name]) query.set(name, S[name]);
    const answer = await fetch(`/api/stream?${query}`, { signal, headers: { Authorization: `Bearer ${S.token}`, 'Last-Event-ID': seen } });
    if (!answer.ok) {
      const body = await answer.json().catch(() => ({}));
      throw Object.assign(new Error(body.error || answer.statusText), { code: answer.status });
    }
    const isBack = attempt > 0;
    attempt = 0;
    S.live = 'live';
    R.drawLive();
    if (isBack) R.refresh();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      let end;
      while ((end = text.indexOf('\n\n')) >= 0) {
        take(text.slice(0, end));
        text = text.slice(end + 2);
      }
    }
  };

  const take = block => {
    let kind = 'message', data = '';
    for (const line of block.split('\n')) {
      if (line.startsWith('event:')) kind = line.slice(6).trim();
      else if (line.startsWith('data:')) data += line.slice(5).trimStart();
      else if (line.startsWith('id:')) seen = line.slice(3).trim();
    }
    if (kind !== 'events' || !data) return;
    const message = JSON.parse(data);
    if (message.reset) { R.refresh(true); return; }
    const news = R.takeEvents(message.events);
    S.summed = Math.max(S.summed, message.last || 0);
    S.listed = Math.max(S.listed, message.last || 0);
    S.busy = message.skipped || 0;
    if (message.session && message.session.run_id && S.snap && S.snap.report.session) {
      const was = S.snap.report.session;
      const ended = was.running && !message.session.running;
      Object.assign(was, message.session);
      if (!S.filter) Object.assign(S.sums, { active: message.session.running ? message.session.active : S.sums.active, connects: message.session.connects, fails: message.session.fails });
      if (ended) R.refresh();
    }
    if (news || message.events.length) {
      R.changed();
      if (S.busy) R.refreshBusy(); else if (message.events.some(event => event.alert)) R.refreshSoon(); else R.refreshLater();
    }
    R.onMessage && R.onMessage(message);
    R.drawHeadSoon();
  };
})();
