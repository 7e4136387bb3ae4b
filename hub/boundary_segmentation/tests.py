"""Examples for the page and for who changes the metric."""

test_cases = [
    {
        "predictions": [
            [
                [
                    0,
                    0,
                    0,
                    1,
                    1,
                    1
                ],
                [
                    0,
                    0,
                    0,
                    1,
                    1,
                    1
                ],
                [
                    0,
                    0,
                    0,
                    1,
                    1,
                    1
                ],
                [
                    0,
                    0,
                    0,
                    1,
                    1,
                    1
                ]
            ]
        ],
        "references": [
            [
                [
                    0,
                    0,
                    0,
                    1,
                    1,
                    1
                ],
                [
                    0,
                    0,
                    0,
                    1,
                    1,
                    1
                ],
                [
                    0,
                    0,
                    0,
                    1,
                    1,
                    1
                ],
                [
                    0,
                    0,
                    0,
                    1,
                    1,
                    1
                ]
            ]
        ],
        "result": {
            "mean_iou": 1.0,
            "mean_boundary_iou": 1.0,
            "mean_bf1": 1.0,
            "mean_accuracy": 1.0,
            "mean_pq_st": 1.0
        }
    },
    {
        "predictions": [
            [
                [
                    0,
                    0,
                    1,
                    1,
                    1,
                    1
                ],
                [
                    0,
                    0,
                    1,
                    1,
                    1,
                    1
                ],
                [
                    0,
                    0,
                    1,
                    1,
                    1,
                    1
                ],
                [
                    0,
                    0,
                    1,
                    1,
                    1,
                    1
                ]
            ]
        ],
        "references": [
            [
                [
                    0,
                    0,
                    0,
                    1,
                    1,
                    1
                ],
                [
                    0,
                    0,
                    0,
                    1,
                    1,
                    1
                ],
                [
                    0,
                    0,
                    0,
                    1,
                    1,
                    1
                ],
                [
                    0,
                    0,
                    0,
                    1,
                    1,
                    1
                ]
            ]
        ],
        "result": {
            "mean_iou": 0.7083333333333333,
            "mean_boundary_iou": 0.5357142857142857,
            "mean_bf1": 1.0,
            "mean_accuracy": 0.8333333333333333,
            "mean_pq_st": 0.7083333333333333
        }
    },
    {
        "predictions": [
            [
                [
                    0,
                    0,
                    0,
                    0,
                    0,
                    0
                ],
                [
                    0,
                    0,
                    0,
                    0,
                    0,
                    0
                ],
                [
                    0,
                    0,
                    0,
                    0,
                    0,
                    0
                ],
                [
                    0,
                    0,
                    0,
                    0,
                    0,
                    0
                ]
            ]
        ],
        "references": [
            [
                [
                    0,
                    0,
                    0,
                    1,
                    255,
                    255
                ],
                [
                    0,
                    0,
                    0,
                    1,
                    255,
                    255
                ],
                [
                    0,
                    0,
                    0,
                    1,
                    255,
                    255
                ],
                [
                    0,
                    0,
                    0,
                    1,
                    255,
                    255
                ]
            ]
        ],
        "result": {
            "mean_iou": 0.375,
            "mean_boundary_iou": 0.3333333333333333,
            "mean_bf1": 0.5,
            "mean_accuracy": 0.5,
            "mean_pq_st": 0.375
        }
    }
]
