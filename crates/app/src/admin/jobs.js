// Asks for the page again, and shows what changed: without this script the page is as good, and stands still.
'use strict';
(() => {
  const EVERY_MS = 3000;
  const said = document.getElementById('said');
  const button = document.getElementById('live');
  let isLive = true;

  function show(page) {
    const main = document.querySelector('main');
    const fresh = page.querySelector('main');
    if (!fresh || fresh.innerHTML === main.innerHTML) return;
    // What has the keyboard's focus keeps it.
    const focused = main.contains(document.activeElement) ? document.activeElement.id : '';
    const state = fresh.dataset.state;
    if (state && state !== main.dataset.state) said.textContent = state;
    main.replaceWith(document.adoptNode(fresh));
    document.title = page.title;
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  async function look() {
    if (isLive && !document.hidden) {
      try {
        const answer = await fetch(location.href, { cache: 'no-store' });
        if (!answer.ok) throw new Error(String(answer.status));
        show(new DOMParser().parseFromString(await answer.text(), 'text/html'));
        if (said.dataset.away) { said.textContent = 'The server answers again.'; delete said.dataset.away; }
      } catch {
        if (!said.dataset.away) { said.textContent = 'The server does not answer: this is what it said last.'; said.dataset.away = '1'; }
      }
    }
    setTimeout(look, EVERY_MS);
  }

  button.hidden = false;
  button.addEventListener('click', () => {
    isLive = !isLive;
    button.textContent = isLive ? 'Stop updating' : 'Update by itself';
  });
  setTimeout(look, EVERY_MS);
})();
