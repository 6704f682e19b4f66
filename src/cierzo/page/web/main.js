document.querySelector("title");
