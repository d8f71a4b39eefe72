// Keeps the page for when there is no network. FILES, the list of what to keep, is put in front of this line.

/* global FILES */
const CACHE = `fertools ${self.registration.scope}`;

// Asked of the server again but not sent again if they are unchanged: the page has just loaded most of them.
self.addEventListener("install", (event) => {
  const requests = FILES.map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

// The network first, so that a new page is seen at once and another site at this address is not hidden.
self.addEventListener("fetch", (event) => {
  const { request } = event;
  const kept = FILES.some((file) => new URL(file, self.registration.scope).href === request.url);
  if (request.method === "GET" && kept) event.respondWith(answer(request));
});

async function answer(request) {
  const cache = await caches.open(CACHE);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const response = await cache.match(request);
    if (response) return response;
    throw error;
  }
}
