// The token, for as long as this tab is open. It is sent in a header and is never part of an address.

const KEY = "distbp.token";
let me = null;

export const token = () => sessionStorage.getItem(KEY);
export const whoIsThis = () => me;

export function signIn(text, found) {
  sessionStorage.setItem(KEY, text);
  me = found;
}

export function remember(found) {
  me = found;
}

export function signOut() {
  sessionStorage.removeItem(KEY);
  me = null;
  dispatchEvent(new Event("signed-out"));
}

/** Whether the token's scopes allow something; the service has the last word. */
export function may(scope) {
  const scopes = me?.token.scopes ?? [];
  return scopes.includes(scope) || scopes.includes("admin");
}
