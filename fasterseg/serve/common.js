"use strict";
const common = (() => {
  const ENDED = 1000, FULL = 1013;
  const SILENT_MS = 5000;
  const byId = (id) => document.getElementById(id);

  // A token in the address would stay in the history and in copied links; the cookie is set.
  if (location.search) history.replaceState(null, "", location.pathname);

  // The page of a stream is shown at the root and, of several streams, below it.
  const isOneOfSeveral = /\/streams\/[^/]+\/$/.test(location.pathname);
  const HOME = isOneOfSeveral ? "../../" : "./";

  const kept = (name, value) => {
    try {
      if (value === undefined) return localStorage.getItem("fasterseg-" + name);
      localStorage.setItem("fasterseg-" + name, value);
    } catch { /* storage may be forbidden */ }
    return null;
  };

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  // ---- numbers -----------------------------------------------------------------------------
  const NAMES = {
    captured: "captured", dropped: "dropped", duplicated: "duplicated", lost_frames: "undecodable",
    reconnects: "reconnects", seconds_offline: "offline", max_staleness_s: "max staleness", staleness_s: "staleness",
  };
  const integers = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
  const whole = (value) => integers.format(value);

  function duration(seconds) {
    const s = Math.floor(seconds);
    if (s < 60) return `${seconds < 10 ? seconds.toFixed(1) : s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
    return `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min`;
  }

  function counter(key, value) {
    const isTime = key.startsWith("seconds") || key.endsWith("_s");
    const text = !isTime ? whole(value) : key.endsWith("staleness_s") && value < 1 ? `${whole(1000 * value)} ms` : duration(value);
    return [NAMES[key] || key.replaceAll("_", " "), text];
  }

  const STATES = { live: "live", lost: "stream lost", full: "too many viewers", offline: "no connection" };
  const stateText = (state) => STATES[state] || state;

  // ---- connection --------------------------------------------------------------------------
  // Pictures begin with the length of their header, and the header.
  function headed(buffer) {
    const length = new DataView(buffer).getUint32(0, true);
    return [JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length))), 4 + length];
  }

  // One connection that comes back; it says `ready` for every picture the page can take.
  // address(): where; facts: what may be fetched beside it; wanted(): whether pictures are;
  // take(message), show(buffer, isStillOpen), lost(state) are called with what happens.
  function connection({ address, facts, inFlight, wanted, take, show, lost }) {
    let socket = null, owed = 0, heardAt = 0, retryMs = 1000;

    function ask() {
      while (owed > 0 && wanted() && socket && socket.readyState === WebSocket.OPEN) {
        owed--;
        socket.send("ready");
      }
    }

    async function pass(buffer, from) {
      try {
        await show(buffer, () => socket === from);
      } finally {
        if (socket === from) { owed++; ask(); }
      }
    }

    function connect() {
      const url = new URL(address(), location.href);
      url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
      const opened = new WebSocket(url);
      opened.binaryType = "arraybuffer";
      socket = opened;
      owed = 0;
      heardAt = performance.now();
      opened.onopen = () => { retryMs = 1000; owed = inFlight; ask(); };
      opened.onmessage = ({ data }) => {
        if (socket !== opened) return;
        heardAt = performance.now();
        if (typeof data === "string") take(JSON.parse(data));
        else pass(data, opened);
      };
      opened.onclose = ({ code }) => { if (socket === opened) lose(code); };
    }

    async function lose(code) {
      socket = null;
      lost(code === ENDED ? "ended" : code === FULL ? "full" : "offline");
      setTimeout(connect, retryMs);
      retryMs = Math.min(retryMs * 1.6, 10000);
      try {
        // A program that was started again may want another token, or show other streams.
        const { status } = await fetch(facts);
        if (status === 401) location.reload();
        if (status === 404 && (await (await fetch(`${HOME}healthz`)).json()).status) location.replace(HOME);
      } catch { /* not there */ }
    }

    setInterval(() => {
      if (socket && performance.now() - heardAt > SILENT_MS) {
        const silent = socket;
        socket = null;
        silent.close();
        lose(0);
      }
    }, 1000);
    document.addEventListener("visibilitychange", ask);
    return { connect, ask };
  }

  // ---- theme -------------------------------------------------------------------------------
  const THEMES = ["auto", "light", "dark"];
  function setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    byId("theme").textContent = `Theme: ${theme}`;
    kept("theme", theme);
  }
  byId("theme").addEventListener("click", () =>
    setTheme(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]));
  setTheme(THEMES.includes(kept("theme")) ? kept("theme") : "auto");

  return { byId, connection, counter, duration, element, headed, isOneOfSeveral, kept, stateText, whole };
})();
