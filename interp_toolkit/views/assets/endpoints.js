"use strict";
// Shows an OpenAPI document: each route with what it does, its body and its responses.
(() => {
  const {make, prose} = elements;

  function schemaText(schema, all, depth = 0) {
    if (!schema || depth > 3) return "…";
    if (schema.$ref) return schemaText(all[schema.$ref.split("/").pop()], all, depth);
    const choices = schema.anyOf || schema.oneOf;
    if (choices) return [...new Set(choices.map((one) => schemaText(one, all, depth)))].join(" or ");
    if (schema.const !== undefined) return JSON.stringify(schema.const);
    if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" or ");
    if (schema.type === "array") return `[${schemaText(schema.items, all, depth + 1)}, …]`;
    if (!schema.properties) return schema.type || "any";
    const indent = "  ".repeat(depth + 1), required = schema.required || [];
    const lines = Object.entries(schema.properties).map(([name, value]) => {
      const otherwise = value.default === undefined || value.default === null ? "" : ` = ${JSON.stringify(value.default)}`;
      return `${indent}${name}${required.includes(name) ? "" : "?"}: ${schemaText(value, all, depth + 1)}${typeof value.default === "object" && value.default !== null && !Array.isArray(value.default) ? "" : otherwise}`;
    });
    return `{\n${lines.join("\n")}\n${"  ".repeat(depth)}}`;
  }

  async function draw() {
    const place = document.getElementById("routes");
    const api = await (await fetch("/openapi.json")).json(), all = (api.components || {}).schemas || {};
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, route] of Object.entries(methods)) {
        const parts = [make("h2", {textContent: `${method.toUpperCase()} ${path}`}), make("p", {}, prose(route.description || route.summary || ""))];
        const body = route.requestBody && route.requestBody.content["application/json"];
        if (body) parts.push(make("h3", {textContent: "Body"}), make("pre", {className: "wide", tabIndex: 0, textContent: schemaText(body.schema, all)}));
        const responses = Object.entries(route.responses).map(([status, response]) => make("li", {}, prose(`${status}: ${response.description}`)));
        parts.push(make("ul", {}, ...responses));
        place.append(make("section", {}, ...parts));
      }
    }
  }

  draw().catch((error) => { document.getElementById("routes").textContent = `The document cannot be read: ${error.message}`; });
})();
