"""How the page looks and what little it does: one style sheet and one script, both inside the page."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f5f7f9; --ink: #1b2127; --soft: #55606b; --line: #d5dce3;
  --before: #b4c0cc; --after: #1667bd; --cost: #8a6fb8; --good: #19703f; --bad: #b3261e; --warn: #7a5900;
  --warned: #fff5d9; --over: #ffffff; --missed: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181c; --card: #1d2329; --ink: #e8ecf0; --soft: #a7b2bd;
  --line: #38424c; --before: #56626e; --after: #6db0f5; --cost: #b39ddb; --good: #6fce97; --bad: #ff8a80;
  --warn: #ffd166; --warned: #33290d; --over: #0d1115; --missed: #ff8a80; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; background: var(--paper); color: var(--ink);
  overflow-wrap: anywhere; }
header, main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.5rem; }
h1 { font-size: 1.05rem; font-weight: 600; margin: 0; color: var(--soft); }
h2 { font-size: 1.2rem; margin: 0 0 .5rem; line-height: 1.3; overflow-wrap: anywhere; }
.lead { font-size: clamp(1.25rem, 4vw, 1.75rem); line-height: 1.3; margin: .4rem 0 .6rem; font-weight: 650; }
.badge { display: inline-block; border: 2px solid currentColor; border-radius: 1rem; padding: 0 .7rem;
  font-weight: 650; }
.good { color: var(--good); } .poor, .failed { color: var(--bad); } .unsure { color: var(--warn); }
.warning { background: var(--warned); border-left: 4px solid var(--warn); padding: .4rem .8rem; margin: .5rem 0;
  overflow-wrap: anywhere; }
p { overflow-wrap: anywhere; margin: .4rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 1rem 0; font-size: .92rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; margin: .4rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; font: .85rem/1.45 ui-monospace, monospace; }
section { border-top: 1px solid var(--line); padding: 1.2rem 0 1rem; }
figure { margin: .3rem 0 0; } figcaption { color: var(--soft); font-size: .9rem; }
svg { display: block; width: 100%; margin: .7rem 0 .2rem; overflow: visible; }
svg text { fill: var(--ink); font-size: 13px; } svg .tick { fill: var(--soft); font-size: 11px; }
svg .told { fill: var(--soft); font-variant-numeric: tabular-nums; } svg .value { font-size: 11px; }
svg .over { fill: var(--over); }
.grid { stroke: var(--line); } .before { fill: var(--before); } .after { fill: var(--after); }
.cost { fill: var(--cost); } .cell { fill: var(--after); }
.spread { stroke: var(--ink); stroke-width: 2; } .median { stroke: var(--ink); stroke-width: 2; stroke-dasharray: 3 2; }
.stem { stroke: var(--before); stroke-width: 1.5; } .front { stroke: var(--soft); stroke-width: 1.5; }
.bound { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 6 4; }
.dot.before { fill: var(--paper); stroke: var(--soft); stroke-width: 1.5; }
.dot.kept { fill: var(--after); } .dot.chosen { fill: var(--good); } .dot.missed { fill: var(--paper);
  stroke: var(--missed); stroke-width: 2; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0; margin: .2rem 0 .6rem;
  font-size: .85rem; color: var(--soft); } .legend li { display: flex; align-items: center; gap: .4rem; }
.legend svg { width: 14px; height: 14px; margin: 0; flex: none; }
.gallery { list-style: none; display: flex; flex-wrap: wrap; gap: .8rem; padding: 0; margin: .5rem 0; }
.gallery li { width: 7rem; font-size: .8rem; color: var(--soft); } .gallery img { width: 6rem; height: auto;
  display: block; image-rendering: pixelated; border: 1px solid var(--line); }
summary { cursor: pointer; padding: .25rem 0; color: var(--soft); } summary:focus-visible, button:focus-visible,
input:focus-visible, .scroll:focus-visible { outline: 3px solid var(--after); outline-offset: 2px; }
.scroll { overflow-x: auto; max-height: 34rem; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
caption { text-align: left; color: var(--soft); padding: .3rem 0; }
th, td { padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: anywhere; min-width: 7.5rem; font-weight: 400; }
.number { min-width: 4rem; }
.unseen { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
thead th { font-weight: 600; position: sticky; top: 0; background: var(--paper); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; text-align: inherit; }
button.copy { border: 1px solid var(--line); border-radius: 4px; padding: 0 .6rem; font-size: .85rem; }
th button::after { content: " ↕"; color: var(--soft); } th[aria-sort=ascending] button::after { content: " ↑"; }
th[aria-sort=descending] button::after { content: " ↓"; }
input { font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--soft); border-radius: 4px;
  padding: .1rem .5rem; max-width: 100%; }
#tip { position: fixed; z-index: 9; pointer-events: none; background: var(--ink); color: var(--paper); padding: .25rem
  .6rem; border-radius: 4px; font-size: .85rem; max-width: min(26rem, 90vw); overflow-wrap: anywhere; }
footer { padding-bottom: 2rem; color: var(--soft); font-size: .85rem; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } svg .tick {
  font-size: 10px; } th, td { min-width: 4.5rem; padding-right: .5rem; } .number { min-width: 3rem; } }
@media print { .scroll { max-height: none; overflow: visible; } section, figure, tr { break-inside: avoid; }
  button.copy, .filter { display: none; } body { font-size: 11pt; } thead th { position: static; } }
""".strip()

SCRIPT = """
(() => {
  const make = (tag, more) => Object.assign(document.createElement(tag), more);
  const tip = make('div', {id: 'tip', hidden: true});
  tip.setAttribute('aria-hidden', 'true');
  document.body.append(tip);
  document.addEventListener('pointermove', event => {
    const mark = event.target.closest && event.target.closest('[data-tip]');
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    tip.style.left = Math.max(4, Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 4)) + 'px';
    tip.style.top = Math.max(4, event.clientY - tip.offsetHeight - 12) + 'px';
  });
  const scale = {k: 1e3, M: 1e6, G: 1e9, T: 1e12};
  const number = text => {
    const found = /^([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)\\s*([kMGT]?)/.exec(text.trim());
    return found ? Number(found[1]) * (scale[found[2]] || 1) : NaN;
  };
  const compare = (a, b) => {
    const x = number(a), y = number(b);
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y) || a.localeCompare(b);
    return x - y || a.localeCompare(b);
  };
  document.querySelectorAll('table').forEach(table => {
    const body = table.tBodies[0], rows = [...body.rows];
    if (rows.length < 2) return;
    [...table.tHead.rows[0].cells].forEach((head, index) => {
      if (!head.textContent.trim()) return;
      const button = make('button', {type: 'button', textContent: head.textContent});
      head.replaceChildren(button);
      button.addEventListener('click', () => {
        const up = head.getAttribute('aria-sort') !== 'ascending';
        [...table.tHead.rows[0].cells].forEach(other => other.removeAttribute('aria-sort'));
        head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
        const sorted = [...rows].sort((a, b) => compare(a.cells[index].textContent, b.cells[index].textContent));
        body.append(...(up ? sorted : sorted.reverse()));
      });
    });
    if (rows.length <= 12) return;
    const label = make('label', {className: 'filter', textContent: 'Filter: '});
    const input = make('input', {type: 'search'});
    label.append(input);
    table.parentNode.before(label);
    input.addEventListener('input', () => {
      const words = input.value.toLowerCase();
      rows.forEach(row => { row.hidden = !row.textContent.toLowerCase().includes(words); });
    });
  });
  document.querySelectorAll('pre').forEach(block => {
    const button = make('button', {type: 'button', className: 'copy', textContent: 'Copy'});
    button.setAttribute('aria-label', 'Copy: ' + block.dataset.what);
    button.addEventListener('click', () => {
      const done = () => { button.textContent = 'Copied'; };
      if (navigator.clipboard) navigator.clipboard.writeText(block.textContent).then(done, () => {});
      else getSelection().selectAllChildren(block);
    });
    block.after(button);
  });
  addEventListener('beforeprint', () => document.querySelectorAll('details').forEach(part => { part.open = true; }));
})();
""".strip()


def policy() -> str:
    """Return the content security policy: nothing from outside, no script but ours."""
    digest = base64.b64encode(hashlib.sha256(f"\n{SCRIPT}\n".encode()).digest()).decode()
    script = f"script-src 'sha256-{digest}'"
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; {script}; base-uri 'none'; form-action 'none'"
    )
