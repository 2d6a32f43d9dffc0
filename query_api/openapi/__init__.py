"""What the API page says of the query service's routes: OpenAPI as data, with limits and words of the code, and the page."""
