/**
 * OpenAPI: the description of the API (OpenAPI 3.1), made of the routes themselves, for clients and generators.
 */
import type { ParameterSpec, Route } from './route.ts';

const ERROR = {
  type: 'object',
  required: ['error'],
  properties: { error: { type: 'string', description: 'where: expected X, got Y; what to do' } },
};

/** The document as an object. */
export function describe(routes: readonly Route[], version: string): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    paths[route.path] ??= {};
    paths[route.path][route.method.toLowerCase()] = operation(route);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Sluice',
      version,
      description: 'What a running router knows and does. On the unix socket without a token, on TCP with one.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: '/' }],
    tags: [...new Set(routes.map(({ tag }) => tag))].map((name) => ({ name })),
    paths,
    components: {
      securitySchemes: { token: { type: 'http', scheme: 'bearer', description: '`api.token` of the configuration' } },
      schemas: { Error: ERROR },
    },
    security: [{ token: [] }],
  };
}

function operation(route: Route): Record<string, unknown> {
  const { params = {}, query = {}, body, answer } = route;
  const refusal = { content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } } };
  const words = route.path.split('/').map((part) => part.replace(/[^a-zA-Z0-9]/g, ''));
  const responses: Record<string, unknown> = {
    200: { description: answer.description, content: { [answer.type]: { schema: answer.schema ?? {} } } },
    400: { description: 'A parameter or the body is wrong', ...refusal },
  };
  if (!route.open) responses[401] = { description: 'The token is missing or wrong', ...refusal };
  if (body !== undefined) responses[413] = { description: `More than ${body.limit} bytes`, ...refusal };
  return {
    operationId: [route.method.toLowerCase(), ...words].filter((word) => word !== '').join('_'),
    summary: route.summary,
    tags: [route.tag],
    parameters: [
      ...Object.entries(params).map(([name, spec]) => parameter(name, 'path', { ...spec, required: true })),
      ...Object.entries(query).map(([name, spec]) => parameter(name, 'query', spec)),
    ],
    ...(body === undefined
      ? {}
      : {
          requestBody: {
            required: true,
            description: `${body.description}; at most ${body.limit} bytes`,
            content: Object.fromEntries(body.types.map((type) => [type, { schema: body.schema ?? {} }])),
          },
        }),
    responses,
    ...(route.open ? { security: [] } : {}),
  };
}

function parameter(name: string, where: 'path' | 'query', spec: ParameterSpec): Record<string, unknown> {
  return {
    name,
    in: where,
    description: spec.description,
    required: spec.required ?? false,
    schema: { type: 'string', ...(spec.values === undefined ? {} : { enum: spec.values }) },
  };
}
