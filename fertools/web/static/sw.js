// Keeps the page for when there is no network. In front of this line stand FILES, what to keep, and VERSION, a digest
// of their contents. So a new page has a new script, which browsers look for on every visit, and a cache of its own.

/* global FILES, VERSION */
const OURS = `fertools ${self.registration.scope}`;
const CACHE = `${OURS} ${VERSION}`;

// Asked of the server again but not sent again if they are unchanged: the page has just loaded most of them.
self.addEventListener("install", (event) => {
  const requests = FILES.map((file) => new Request(file, { cache: "no-cache" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(Promise.all([removeOthers(), self.clients.claim()]));
});

/** Remove what earlier pages of this address kept; those of folders in it are other pages. */
async function removeOthers() {
  const names = await caches.keys();
  const others = names.filter((name) => `${name} `.startsWith(`${OURS} `) && name !== CACHE);
  await Promise.all(others.map((name) => caches.delete(name)));
}

// The network first, so that a new page is seen at once and another site at this address is not hidden. A query, as
// links from elsewhere often carry one, makes no other page.
self.addEventListener("fetch", (event) => {
  const { origin, pathname } = new URL(event.request.url);
  const address = origin + pathname;
  const kept = FILES.some((file) => new URL(file, self.registration.scope).href === address);
  if (event.request.method === "GET" && kept) event.respondWith(answer(event.request, address));
});

async function answer(request, address) {
  try {
    // By default it could be the browser's own cache that answers: for days, where a server does not say for how long.
    const response = await fetch(request, { cache: "no-cache" });
    return response.ok ? plain(response) : response;
  } catch (error) {
    const cache = await caches.open(CACHE);
    const response = await cache.match(address);
    if (response) return plain(response);
    throw error;
  }
}

/** A copy without the mark that it came by a redirect, with which browsers refuse it for a page. It must not be used
    again unasked: browsers also keep in memory what they were given, and do not ask this script then. */
function plain(response) {
  const { body, status, statusText } = response;
  const headers = new Headers(response.headers);
  headers.set("Cache-Control", "no-cache");
  return new Response(body, { status, statusText, headers });
}
