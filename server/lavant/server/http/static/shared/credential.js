// The credential of this page: kept in memory, and gone with the page. Cookies would be sent by foreign pages as well.

let credential = "";
let onUnauthenticated = () => {};

export const hasCredential = () => credential !== "";

export function setCredential(text) {
  credential = text.trim();
}

// `listener(message)` is called whenever the server refuses the credential, or the lack of one.
export function whenUnauthenticated(listener) {
  onUnauthenticated = listener;
}

// Fetches with the credential.
export async function request(path, { headers = {}, ...options } = {}) {
  const sent = credential;
  const authorization = sent ? { Authorization: `Bearer ${sent}` } : {};
  const response = await fetch(path, { ...options, headers: { ...headers, ...authorization }, credentials: "omit" });
  if (response.status === 401 && sent === credential) {
    const body = await response.clone().json().catch(() => undefined);
    onUnauthenticated(body?.error?.message ?? "the server wants credentials");
  }
  return response;
}
