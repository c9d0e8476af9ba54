(() => {
  const { byId, connection, counter, duration, element, headed, isOneOfSeveral, kept, stateText, whole } = common;
  const IN_FLIGHT = 2;
  const HISTORY = 240;

  // ---- picture -----------------------------------------------------------------------------
  const canvas = byId("picture"), context = canvas.getContext("2d");
  const layer = document.createElement("canvas"), layerContext = layer.getContext("2d");
  let pixels = null, colours = null;
  let classes = [], shown = [];
  let current = null;

  async function unpack(buffer) {
    const [header, start] = headed(buffer);
    const end = start + header.jpeg_bytes;
    const jpeg = new Blob([new Uint8Array(buffer, start, header.jpeg_bytes)], { type: "image/jpeg" });
    const packed = new Blob([new Uint8Array(buffer, end)]).stream();
    const [bitmap, bytes] = await Promise.all([
      createImageBitmap(jpeg),
      new Response(packed.pipeThrough(new DecompressionStream("deflate"))).arrayBuffer(),
    ]);
    const ids = new Uint8Array(bytes);
    for (let i = header.width; i < ids.length; i++) ids[i] += ids[i - header.width];
    return { header, bitmap, ids };
  }

  function table(opacity) {
    const rgba = new Uint8ClampedArray(1024);
    classes.forEach(({ colour }, id) => {
      if (shown[id]) rgba.set([...colour, Math.round(opacity * 255)], id * 4);
    });
    return new Uint32Array(rgba.buffer);
  }

  function paint({ ids, header: { width, height } }) {
    if (!pixels || pixels.width !== width || pixels.height !== height) {
      layer.width = canvas.width = width;
      layer.height = canvas.height = height;
      pixels = layerContext.createImageData(width, height);
      colours = new Uint32Array(pixels.data.buffer);
      byId("stage").style.setProperty("--aspect", width / height);
    }
    const soft = table(alpha());
    for (let i = 0; i < ids.length; i++) colours[i] = soft[ids[i]];
    if (!byId("contours").checked) return;
    const solid = table(1);
    for (let i = 0, last = ids.length - width; i < last; i++) {
      if (ids[i] !== ids[i + 1] || ids[i] !== ids[i + width]) colours[i] = solid[ids[i]];
    }
  }

  function render() {
    if (!current) return;
    paint(current);
    layerContext.putImageData(pixels, 0, 0);
    context.drawImage(current.bitmap, 0, 0, canvas.width, canvas.height);
    context.drawImage(layer, 0, 0);
  }

  const alpha = () => byId("alpha").value / 100;

  // ---- connection --------------------------------------------------------------------------
  let paused = false, state = "connecting", stats = null;
  const drawnAt = [];

  const line = connection({
    address: () => `stream?width=${Math.round(byId("stage").clientWidth * Math.min(devicePixelRatio, 1.5))}`,
    facts: "stats.json",
    inFlight: IN_FLIGHT,
    wanted: () => !paused && !document.hidden,
    take,
    show,
    lost: (next) => setState(next === "offline" && state === "ended" ? "ended" : next),
  });

  async function show(buffer, isStillOpen) {
    const next = await unpack(buffer);
    // Two pictures are unpacked at a time: the later one may be ready first.
    const late = current && !current.old && next.header.sequence < current.header.sequence;
    if (paused || late || !isStillOpen()) {
      next.bitmap.close();
    } else {
      if (current) current.bitmap.close();
      current = next;
      render();
      describe();
    }
  }

  function take(message) {
    if (message.type === "classes") setClasses(message.classes);
    if (message.type !== "stats") return;
    if (stats === null) start(message.style);
    stats = message;
    setState(message.state);
    tell(message);
  }

  // ---- state -------------------------------------------------------------------------------
  const VEILS = {
    connecting: ["Connecting", ""],
    starting: ["Waiting for the first frame", "The engine is being loaded or built."],
    lost: ["Stream lost", ""],
    ended: [isOneOfSeveral ? "The stream has ended" : "The run has ended", "The page comes back by itself when it is started again."],
    offline: ["No connection to fasterseg", "Trying again."],
    full: ["Too many viewers", "Trying again."],
    old: ["This browser is too old for the live picture", "snapshot.png, below, works everywhere."],
  };

  function setState(next) {
    if (next !== state && (next === "offline" || next === "ended") && current) current.old = true;
    state = next;
    const age = stats && stats.frame_age_s;
    const label = stateText(state);
    const rate = state === "live" && stats && stats.fps > 0 ? `${stats.fps.toFixed(1)} FPS` : "";
    byId("state").dataset.state = document.body.dataset.state = state;
    // Read aloud whenever it changes: the rate is beside it.
    if (byId("state-text").textContent !== label) byId("state-text").textContent = label;
    byId("rate").textContent = rate;
    document.title = `${rate || label} · ${stats ? nameOf(stats) : "fasterseg"}`;
    const [title, hint] = VEILS[state] || ["Waiting for a picture", ""];
    byId("veil-title").textContent = title;
    byId("veil-text").textContent = state === "lost" && age !== null ? `No frame for ${duration(age)}; waiting for it to come back.` : hint;
    byId("veil").dataset.state = state;
    const stopped = paused && current;
    byId("veil").hidden = Boolean(stopped || (state === "live" && current && !current.old));
    byId("badge").hidden = !stopped;
    byId("badge").textContent = stopped ? `paused at frame ${current.header.frame_index}` : "";
    byId("snapshot").disabled = !current || !byId("veil").hidden;
    if (stopped) byId("frame").textContent = caption();
    else if (current && state !== "live") byId("frame").textContent = `last: ${caption()}`;
  }

  // ---- figures -----------------------------------------------------------------------------
  const rates = [];

  const number = (value, digits) => value >= 100 ? whole(value) : value.toFixed(digits);
  const nameOf = (now) => isOneOfSeveral ? `${now.stream} · ${now.source}` : now.source;

  function tell(now) {
    byId("source").textContent = byId("source").title = nameOf(now);
    byId("version").textContent = `fasterseg ${now.version}`;
    byId("about").textContent = Object.values(now.about).join(" · ");
    const figures = [["FPS", now.frames > 1 ? now.fps.toFixed(1) : "–"], ["frames", whole(now.frames)]];
    for (const [key, value] of Object.entries(now.counters)) figures.push(counter(key, value));
    if (now.frame_age_s !== null) figures.push(["last frame", `${duration(now.frame_age_s)} ago`, now.state === "lost"]);
    figures.push(["running for", duration(now.uptime_s)]);
    byId("figures").replaceChildren(...figures.map(([name, value, bad]) =>
      element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value, className: bad ? "bad" : "" }))));
    tellStages(now.stages_ms);
    tellShares(now.class_shares);
    if (now.frames > 1) rates.push(now.fps);
    if (rates.length > HISTORY) rates.shift();
    if (!rates.length) return;
    const top = Math.max(1, ...rates);
    byId("course").setAttribute("points", rates.map((rate, i) => `${HISTORY - rates.length + i},${(39 - 37 * rate / top).toFixed(1)}`).join(" "));
    byId("range").textContent = `${Math.min(...rates).toFixed(1)} to ${Math.max(...rates).toFixed(1)}`;
  }

  function tellStages(stages) {
    const entries = Object.entries(stages);
    const longest = Math.max(0.001, ...entries.map(([, ms]) => ms.p95));
    const slowest = Math.max(...entries.map(([, ms]) => ms.p50));
    byId("stages").replaceChildren(...entries.map(([stage, ms]) => {
      const tail = element("span", { className: "tail" }), body = element("span", { className: "body" });
      tail.style.width = `${100 * ms.p95 / longest}%`;
      body.style.width = `${100 * ms.p50 / longest}%`;
      return element("tr", { className: ms.p50 === slowest ? "slowest" : "" },
        element("th", { scope: "row", textContent: stage }),
        element("td", { textContent: number(ms.p50, 2) }), element("td", { textContent: number(ms.p95, 2) }),
        element("td", {}, element("span", { className: "meter" }, tail, body)));
    }));
  }

  function tellShares(shares) {
    classes.forEach(({ name, row }) => {
      const share = shares[name] || 0;
      row.querySelector(".share").textContent = `${(100 * share).toFixed(1)} %`;
      row.querySelector(".meter > span").style.width = `${100 * share}%`;
    });
  }

  function caption() {
    const { header } = current;
    const small = header.height === header.size[0] ? "" : ` shown as ${header.height}x${header.width}`;
    return `frame ${header.frame_index}, ${header.timestamp_s.toFixed(2)} s, ${header.size.join("x")}${small}`;
  }

  function describe() {
    const now = performance.now();
    drawnAt.push(now);
    while (drawnAt.length > 2 && now - drawnAt[0] > 3000) drawnAt.shift();
    const rate = drawnAt.length > 1 ? (drawnAt.length - 1) * 1000 / (now - drawnAt[0]) : 0;
    byId("frame").textContent = `${caption()}, ${rate.toFixed(1)} pictures/s`;
    if (!byId("veil").hidden) setState(state);
    if (byId("snapshot").disabled) byId("snapshot").disabled = false;
  }

  // ---- classes -----------------------------------------------------------------------------
  function setClasses(list) {
    const before = new Map(classes.map(({ name }, id) => [name, shown[id]]));
    classes = list;
    shown = list.map(({ name }) => before.get(name) ?? true);
    byId("classes").replaceChildren(...list.map((entry, id) => {
      const box = element("input", { type: "checkbox", checked: shown[id] });
      box.addEventListener("change", () => { shown[id] = box.checked; render(); });
      const swatch = element("span", { className: "swatch" });
      swatch.style.backgroundColor = `rgb(${entry.colour.join(" ")})`;
      entry.row = element("label", { className: "row", title: entry.name }, box, swatch,
        element("span", { className: "name", textContent: entry.name }), element("span", { className: "share" }),
        element("span", { className: "meter" }, element("span")));
      return element("li", {}, entry.row);
    }));
    if (stats) tellShares(stats.class_shares);
    render();
  }

  function showAll(value) {
    shown.fill(value);
    for (const { row } of classes) row.querySelector("input").checked = value;
    render();
  }

  function point(event) {
    const box = canvas.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / box.width * canvas.width);
    const y = Math.floor((event.clientY - box.top) / box.height * canvas.height);
    const inside = current && byId("veil").hidden && x >= 0 && y >= 0 && x < canvas.width && y < canvas.height;
    if (!inside) { byId("pointer").textContent = ""; return; }
    const { ids, header } = current;
    const id = ids[y * canvas.width + x];
    const name = classes[id] ? classes[id].name : "no class";
    const [row, column] = [Math.floor(y * header.size[0] / header.height), Math.floor(x * header.size[1] / header.width)];
    byId("pointer").textContent = `${name} (id ${id}) at row ${row}, column ${column}`;
  }

  // ---- controls ----------------------------------------------------------------------------
  function setPaused(value) {
    paused = value && current !== null;
    byId("pause").setAttribute("aria-pressed", paused);
    byId("pause").textContent = paused ? "Resume" : "Pause";
    if (paused) drawnAt.length = 0;
    setState(state);
    line.ask();
  }

  function snapshot() {
    if (byId("snapshot").disabled) return;
    canvas.toBlob((blob) => {
      const stem = (stats ? stats.source : "frame").split("/").pop().replace(/[^\w.-]+/g, "_").slice(-60);
      const link = element("a", { href: URL.createObjectURL(blob), download: `${stem}_${String(current.header.frame_index).padStart(6, "0")}.png` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  function fill() {
    if (document.fullscreenElement) document.exitFullscreen();
    else byId("stage").requestFullscreen();
  }

  function setAlpha(percent) {
    byId("alpha").value = percent;
    byId("alpha-text").textContent = `${percent} %`;
    byId("alpha").setAttribute("aria-valuetext", `${percent} percent`);
    render();
  }

  function start(style) {
    setAlpha(Number(kept("alpha") ?? Math.round(100 * style.alpha)));
    byId("contours").checked = kept("contours") === null ? style.contours : kept("contours") === "true";
  }

  byId("pause").addEventListener("click", () => setPaused(!paused));
  byId("snapshot").addEventListener("click", snapshot);
  byId("fill").addEventListener("click", fill);
  byId("fill").hidden = !byId("stage").requestFullscreen;
  byId("all").addEventListener("click", () => showAll(true));
  byId("none").addEventListener("click", () => showAll(false));
  byId("alpha").addEventListener("input", () => { setAlpha(byId("alpha").value); kept("alpha", byId("alpha").value); });
  byId("contours").addEventListener("change", () => { kept("contours", byId("contours").checked); render(); });
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("pointerleave", () => { byId("pointer").textContent = ""; });
  // Single keys act where the picture has the focus, so that they never surprise elsewhere.
  const KEYS = { " ": () => setPaused(!paused), s: snapshot, c: () => byId("contours").click(), f: fill };
  byId("stage").addEventListener("keydown", (event) => {
    const act = KEYS[event.key.toLowerCase()];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });

  byId("up").hidden = !isOneOfSeveral;
  const able = "DecompressionStream" in window && "createImageBitmap" in window;
  setState(able ? "connecting" : "old");
  byId("stage").focus({ preventScroll: true });
  if (able) line.connect();
})();
