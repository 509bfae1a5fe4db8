// The other peer: graphql-yoga with graphql-ws, serving the same ticks from the same Redis stream.
// node server.mjs PORT REDIS_URL
import { createServer } from 'node:http'
import { useServer } from 'graphql-ws/use/ws'
import { createSchema, createYoga, Repeater } from 'graphql-yoga'
import Redis from 'ioredis'
import { WebSocketServer } from 'ws'

const [port, redisUrl] = process.argv.slice(2)

const typeDefs = /* GraphQL */ `
  enum Cause { OPEN TRADE ORACLE DECAY }
  enum Kind { SNAPSHOT UPDATE }
  type PriceTick {
    assetId: ID! seq: Int! cause: Cause! tradeSeq: Int! at: String! display: String! market: String!
    fundamental: String! marketWeight: String! volume: String! fundamentalStale: Boolean!
  }
  type PriceEvent { kind: Kind! ticks: [PriceTick!]! cursor: String! serverTime: String! missed: Int }
  type Query { ok: Boolean }
  type Subscription { priceTicks(assetIds: [ID!]!, heartbeatSeconds: Int = 5): PriceEvent! }
`

const text = (units, decimals) => {
  const digits = String(units).padStart(decimals + 1, '0')
  const fraction = digits.slice(-decimals).replace(/0+$/, '')
  return digits.slice(0, -decimals) + (fraction ? `.${fraction}` : '')
}
const assetId = (id) => Buffer.from(`Asset:${id}`).toString('base64url')
const shown = (row) => ({
  assetId: assetId(row[0]), seq: row[1], cause: row[3], tradeSeq: row[4], at: new Date(row[5] / 1000).toISOString(),
  display: text(row[6], 12), market: text(row[7], 12), fundamental: text(row[8], 12),
  marketWeight: text(row[9], 9), volume: text(row[10], 6), fundamentalStale: row[11],
})

const byAsset = new Map()
const priceTicks = (_, { assetIds }) =>
  new Repeater(async (push, stop) => {
    for (const id of assetIds) {
      if (!byAsset.has(id)) byAsset.set(id, new Set())
      byAsset.get(id).add(push)
    }
    push({ kind: 'SNAPSHOT', ticks: [], cursor: 'p0', serverTime: new Date().toISOString(), missed: null })
    await stop
    for (const id of assetIds) byAsset.get(id).delete(push)
  })

const schema = createSchema({
  typeDefs,
  resolvers: {
    Query: { ok: () => true },
    Subscription: { priceTicks: { subscribe: priceTicks, resolve: (event) => event } },
  },
})
const yoga = createYoga({ schema, graphqlEndpoint: '/graphql', logging: false })
const server = createServer(yoga)
const sockets = new WebSocketServer({ server, path: '/graphql', perMessageDeflate: false })
// As graphql-yoga's documentation connects the two.
useServer(
  {
    execute: (args) => args.rootValue.execute(args),
    subscribe: (args) => args.rootValue.subscribe(args),
    onSubscribe: async (ctx, _id, params) => {
      const { schema, execute, subscribe, contextFactory, parse, validate } = yoga.getEnveloped({
        ...ctx, req: ctx.extra.request, socket: ctx.extra.socket, params,
      })
      const args = {
        schema, operationName: params.operationName, document: parse(params.query),
        variableValues: params.variables, contextValue: await contextFactory(), rootValue: { execute, subscribe },
      }
      const errors = validate(args.schema, args.document)
      return errors.length ? errors : args
    },
  },
  sockets,
)

async function feed() {
  const redis = new Redis(redisUrl.startsWith('unix:') ? redisUrl.slice('unix://'.length).split('?')[0] : redisUrl)
  let last = '$'
  for (;;) {
    const answer = await redis.xread('COUNT', 100, 'BLOCK', 1000, 'STREAMS', 'megatron:ticks', last)
    for (const [, entries] of answer ?? [])
      for (const [id, fields] of entries) {
        last = id
        for (const row of JSON.parse(fields[fields.indexOf('ticks') + 1])) {
          const tick = shown(row)
          const event = {
            kind: 'UPDATE', ticks: [tick], cursor: `p${row[2]}`, serverTime: new Date().toISOString(), missed: null,
          }
          for (const push of byAsset.get(tick.assetId) ?? []) push(event)
        }
      }
  }
}

server.listen(Number(port), '127.0.0.1')
feed()
