// Keeps the page for when there is no network. FILES, the list of what to keep, is put in front of this line.

/* global FILES */
const CACHE = `fertools ${self.registration.scope}`;

// Asked of the server again but not sent again if they are unchanged: the page has just loaded most of them.
self.addEventListener("install", (event) => {
  const requests = FILES.map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

// The network first, so that a new page is seen at once and another site at this address is not hidden. A query, as
// links from elsewhere often carry one, makes no other page.
self.addEventListener("fetch", (event) => {
  const { origin, pathname } = new URL(event.request.url);
  const address = origin + pathname;
  const kept = FILES.some((file) => new URL(file, self.registration.scope).href === address);
  if (event.request.method === "GET" && kept) event.respondWith(answer(event, address));
});

async function answer(event, address) {
  try {
    // By default it could be the browser's own cache that answers: for days, where a server does not say for how long.
    const response = await fetch(event.request, { cache: "no-cache" });
    if (response.ok) event.waitUntil(keep(address, response.clone()));
    return response;
  } catch (error) {
    const cache = await caches.open(CACHE);
    const response = await cache.match(address);
    if (response) return response;
    throw error;
  }
}

/** As far as there is room: a full disk is no reason not to show what the server sent. */
async function keep(address, response) {
  try {
    const cache = await caches.open(CACHE);
    await cache.put(address, response);
  } catch {
    // What was kept before stays.
  }
}
