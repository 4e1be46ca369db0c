// Uses up the setup link: its token stands in the fragment, which no server and no log sees.
"use strict";

const token = location.hash.slice(1);
// the link works once, and it does not belong in the history
history.replaceState(null, "", location.pathname);

const element = (id) => document.getElementById(id);
const form = element("form");
const problem = element("problem");

function tell(text) {
  problem.textContent = text;
  problem.hidden = text === "";
}

async function complete() {
  const response = await fetch("/v1/setup", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      token,
      name: form.elements.namedItem("name").value,
      email: form.elements.namedItem("email").value,
      password: form.elements.namedItem("password").value,
    }),
  });
  const body = await response.json();
  if (!response.ok) {
    throw new Error(body.error.message);
  }
  return body.secret;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  tell("");
  element("submit").disabled = true;
  try {
    element("token").textContent = await complete();
    form.reset();
    form.hidden = true;
    element("done").hidden = false;
    element("done").focus();
  } catch (error) {
    tell(error instanceof TypeError ? "The server cannot be reached. Try again." : error.message);
    element("submit").disabled = false;
  }
});

element("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(element("token").textContent);
    element("copied").textContent = "Copied.";
  } catch {
    element("copied").textContent = "Select the token and copy it by hand.";
  }
});

if (token === "") {
  tell("This page needs the whole setup link. Open the one from the server log, or run "
    + "keyward admin setup-link for a new one.");
} else {
  form.hidden = false;
}
