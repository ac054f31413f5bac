// The addresses are relative to this page: they are right below any path. Nothing is sent to a validator elsewhere.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null });
