(() => {
  const { byId, connection, counter, duration, element, headed, stateText, whole } = common;
  const IN_FLIGHT = 4;
  const WORDS = { starting: "starting", live: "live", lost: "lost", ended: "ended" };
  const VEILS = {
    starting: "Waiting for the first frame", live: "Waiting for a picture", lost: "Stream lost",
    ended: "The stream has ended", offline: "No connection to fasterseg", full: "Too many viewers",
    connecting: "Connecting",
  };
  const ALWAYS = ["dropped"], ONCE_IT_HAPPENED = ["lost_frames", "reconnects", "seconds_offline"];
  const WIDE = 16 / 9;

  let cards = new Map(), latest = null, state = "connecting", paused = false;

  const line = connection({
    address: () => `thumbnails?width=${width()}`,
    facts: "streams.json",
    inFlight: IN_FLIGHT,
    wanted: () => !paused && !document.hidden,
    take: (message) => { if (message.type === "streams") tell(message); },
    show,
    lost: (next) => lose(next === "offline" && state === "ended" ? "ended" : next),
  });

  // ---- pictures ----------------------------------------------------------------------------
  function width() {
    const [card] = cards.values();
    return card ? Math.round(card.canvas.parentElement.clientWidth * Math.min(devicePixelRatio, 1.5)) : 0;
  }

  async function show(buffer, isStillOpen) {
    const [header, start] = headed(buffer);
    const bitmap = await createImageBitmap(new Blob([new Uint8Array(buffer, start)], { type: "image/jpeg" }));
    const card = cards.get(header.stream);
    if (card && !paused && isStillOpen() && header.sequence > card.sequence) {
      card.canvas.width = bitmap.width;
      card.canvas.height = bitmap.height;
      card.canvas.getContext("2d").drawImage(bitmap, 0, 0);
      card.sequence = header.sequence;
      card.isFresh = true;
      veil(card);
    }
    bitmap.close();
  }

  // ---- cards -------------------------------------------------------------------------------
  function build(streams) {
    cards = new Map(streams.map(({ stream }) => [stream, make(stream)]));
    const columns = Math.ceil(Math.sqrt(streams.length));
    byId("cards").style.setProperty("--columns", columns);
    byId("cards").style.setProperty("--rows", Math.ceil(streams.length / columns));
    byId("cards").classList.toggle("many", streams.length > 4);
    byId("cards").replaceChildren(...[...cards.values()].map(({ item }) => item));
  }

  // One shape for all, so that they stand in rows: their own where it is the same.
  function shape(streams) {
    const sizes = streams.filter(({ size }) => size).map(({ size }) => size.split("x").map(Number));
    const aspects = sizes.map(([height, width]) => width / height);
    const isSame = aspects.length && Math.max(...aspects) / Math.min(...aspects) < 1.02;
    const aspect = isSame ? Math.min(2.4, Math.max(1, aspects[0])) : WIDE;
    byId("cards").style.setProperty("--aspect", aspect);
  }

  function make(name) {
    const parts = {
      canvas: element("canvas", { width: 16, height: 9 }),
      title: element("span", { className: "veil-title" }), hint: element("span"),
      state: element("span", { className: "state" }), rate: element("span", { className: "rate" }),
      source: element("p", { className: "card-source" }), figures: element("dl"),
    };
    parts.canvas.setAttribute("aria-hidden", "true");
    parts.veil = element("div", { className: "veil" }, parts.title, parts.hint);
    parts.link = element("a", { href: `streams/${encodeURIComponent(name)}/` },
      element("div", { className: "thumb" }, parts.canvas, parts.veil, element("span", { className: "badge", textContent: "paused" })),
      element("div", { className: "card-head" }, element("h2", { textContent: name, title: name }), parts.state, parts.rate),
      parts.source, parts.figures);
    parts.item = element("li", { className: "card" }, parts.link);
    return { ...parts, sequence: 0, isFresh: false, now: null };
  }

  function fill(card, now) {
    if (card.now && card.now.state === "live" && now.state !== "live") card.isFresh = false;
    card.now = now;
    card.item.dataset.state = card.state.dataset.state = now.state;
    card.state.textContent = WORDS[now.state] || now.state;
    card.rate.textContent = now.state === "live" && now.frames > 1 ? `${now.fps.toFixed(1)} FPS` : "";
    card.source.textContent = card.source.title = now.source;
    card.link.setAttribute("aria-label", `${now.stream}, ${stateText(now.state)} ${card.rate.textContent}`.trim());
    const told = [
      ...ALWAYS.filter((key) => key in now.counters), ...ONCE_IT_HAPPENED.filter((key) => now.counters[key]),
      ...(now.state === "live" && "staleness_s" in now.counters ? ["staleness_s"] : []),
    ];
    const figures = [["frames", whole(now.frames)], ...told.map((key) => counter(key, now.counters[key]))];
    card.figures.replaceChildren(...figures.map(([name, value]) =>
      element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value }))));
    veil(card);
  }

  function veil(card) {
    const connected = !["offline", "full", "connecting"].includes(state);
    const shown = connected ? card.now.state : state;
    card.veil.hidden = connected && card.now.state === "live" && card.isFresh;
    card.veil.dataset.state = shown;
    card.title.textContent = VEILS[shown] || "";
    const age = card.now.frame_age_s;
    card.hint.textContent = shown === "lost" && age !== null ? `no frame for ${duration(age)}` : "";
  }

  // ---- state -------------------------------------------------------------------------------
  function tell(message) {
    const names = message.streams.map(({ stream }) => stream);
    if (names.join("/") !== [...cards.keys()].join("/")) build(message.streams);
    latest = message;
    setState(message.state);
    shape(message.streams);
    message.streams.forEach((now) => fill(cards.get(now.stream), now));
    byId("about").textContent = byId("about").title = Object.values(message.about).join(" · ");
    byId("version").textContent = `fasterseg ${message.version}`;
  }

  function lose(next) {
    setState(next);
    for (const card of cards.values()) {
      // A program that was started again counts from one.
      card.sequence = 0;
      card.isFresh = false;
      veil(card);
    }
  }

  function summary() {
    const states = latest.streams.map((now) => now.state);
    const count = (wanted) => states.filter((one) => one === wanted).length;
    if (count("live") === states.length) return `all ${states.length} live`;
    return ["lost", "ended", "starting", "live"].filter(count).map((one) => `${count(one)} ${WORDS[one]}`).join(", ");
  }

  function setState(next) {
    state = next;
    const known = latest && ["starting", "live", "lost", "ended"].includes(state);
    const label = known && latest.streams.some((now) => now.state !== "ended") ? summary() : stateText(state);
    const fps = known ? latest.streams.reduce((sum, now) => sum + now.fps, 0) : 0;
    byId("state").dataset.state = document.body.dataset.state = state;
    // Read aloud whenever it changes: the rate is beside it.
    if (byId("state-text").textContent !== label) byId("state-text").textContent = label;
    byId("rate").textContent = fps > 0 ? `${fps.toFixed(1)} FPS` : "";
    document.title = `${label} · fasterseg`;
  }

  function setPaused(value) {
    paused = value;
    byId("pause").setAttribute("aria-pressed", paused);
    byId("pause").textContent = paused ? "Resume pictures" : "Pause pictures";
    byId("cards").classList.toggle("paused", paused);
    line.ask();
  }

  async function begin() {
    setState("connecting");
    try {
      // How wide the pictures are depends on how many there are.
      const answer = await fetch("streams.json");
      if (answer.ok) tell(await answer.json());
    } catch { /* the connection tells */ }
    line.connect();
  }

  byId("pause").addEventListener("click", () => setPaused(!paused));
  begin();
})();
